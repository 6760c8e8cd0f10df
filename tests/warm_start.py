"""Programs that start at once: stand-ins for the commands of fairseq and of this package.

A script of ``examples/`` runs dozens of commands, and each imports torch and fairseq for
seconds. Here a command is a small client: a server, which has imported them once and has no
threads, forks a process that runs the command in the client's place, with its arguments,
folder, environment, input and output. Nothing of this package is imported beforehand.

    python warm_start.py SOCKET      the server
"""

import array
import json
import os
import select
import signal
import socket
import sys

FAIRSEQ = ("train", "generate", "preprocess", "validate")
MODULES = {f"fairseq-{name}": f"fairseq_cli.{name}" for name in FAIRSEQ}
MODULES["fairseq-seqkd"] = "fairseq_seqkd.cli.main"
# They set up logging before they import the rest of fairseq, which does so as well.
CONFIGURING = ("fairseq-train", "fairseq-preprocess", "fairseq-validate")
# With neither site-packages nor anything heavy, it starts in some milliseconds.
CLIENT = """\
#!{python} -SE
import array, json, os, signal, socket, sys
request = dict(program={program!r}, argv=sys.argv, folder=os.getcwd(), environ=dict(os.environ))
if {program!r} == "python" and not (len(sys.argv) > 1 and "/benchmarks/" in sys.argv[1]):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
descriptors = array.array("i", [0, 1, 2])
server.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
server.sendall(json.dumps(request).encode() + b"\\n")
status = server.makefile().read()
sys.exit(int(status) if status else 1)
"""


def write_clients(folder, path):
    """Write the programs into a folder; ``path`` is the server's socket."""
    for program in (*MODULES, "python"):
        client = os.path.join(folder, program)
        with open(client, "w") as file:
            file.write(CLIENT.format(python=sys.executable, program=program, path=path))
        os.chmod(client, 0o755)


def serve(path):
    """Answer clients for ever, each in a process of its own."""
    import fairseq_cli.generate
    import fairseq_cli.preprocess
    import fairseq_cli.train
    import fairseq_cli.validate  # noqa: F401
    import sacrebleu  # noqa: F401
    import tabulate  # noqa: F401
    import torch._dynamo  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for these processes
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    while True:
        client, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(client)
            os._exit(0)
        client.close()


def answer(client):
    """Run a client's command, and tell it the exit status; a client that dies ends it."""
    size = array.array("i", [0]).itemsize
    _, ((_, _, data),), _, _ = client.recvmsg(1, socket.CMSG_SPACE(3 * size))
    descriptors = array.array("i", data)
    request = json.loads(client.makefile().readline())
    child = os.fork()
    if child == 0:
        run(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if select.select([client], [], [], 0.02)[0]:  # the client's end is closed
            os.kill(child, signal.SIGTERM)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    try:
        client.sendall(str(code).encode())
    except BrokenPipeError:
        pass


def run(request, descriptors):
    """In the child: become the client's command."""
    import atexit
    import logging
    import multiprocessing
    import runpy

    import torch

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked
    sys.argv, program, code = request["argv"], request["program"], 1
    if program in CONFIGURING:
        logging.root.handlers.clear()
    try:
        if program == "python":
            sys.argv = sys.argv[1:]
            sys.path.insert(0, os.path.dirname(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            runpy.run_module(MODULES[program], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
        code = code if isinstance(code, int) else int(code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
