"""Commands, each in a process of its own, which may be killed.

They are forked from a process that has imported fairseq, and nothing of this package: importing
takes longer than the rest. That process has no threads: what another thread holds at the moment
of a fork, such as a progress bar's or an allocator's lock, a child would wait for without end.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [f"fairseq_cli.{name}" for name in ("train", "generate", "preprocess", "hydra_train")]
    + ["sacrebleu", "tabulate", "torch._dynamo"]
)


class Failed(Exception):
    """A command that should have worked did not; its output is the message."""


def run_module(module, arguments, output, folder=None):
    """In the child: what ``python -m module arguments`` does in a folder."""
    os.chdir(folder or os.getcwd())
    with open(output, "w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.argv = [module, *arguments]
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def start(command, *arguments, folder=None):
    """Start a fairseq command, or ``fairseq-seqkd`` by the name of ``seqkd``."""
    handle, output = tempfile.mkstemp()
    os.close(handle)
    module = "fairseq_seqkd.cli.main" if command == "seqkd" else f"fairseq_cli.{command}"
    arguments = module, [*map(str, arguments)], output, folder
    process = PROCESSES.Process(target=run_module, args=arguments)
    process.start()
    return process, output


def output_of(started, fails=False):
    """What a command printed, when it has ended.

    Raises:
        Failed: it ended otherwise than expected
    """
    process, path = started
    process.join()
    with open(path) as file:
        output = file.read()
    os.unlink(path)
    if (process.exitcode != 0) != fails:
        raise Failed(f"exit status {process.exitcode}:\n{output}")
    return output


def fairseq(command, *arguments, fails=False, folder=None):
    """What a fairseq command prints; whether it fails is as expected, or Failed is raised."""
    return output_of(start(command, *arguments, folder=folder), fails=fails)


def run_command(arguments):
    """In the child: a subcommand of ``fairseq-seqkd`` with small chunks, without a word."""
    import torch

    from fairseq_seqkd.cache import build
    from fairseq_seqkd.cli import main
    from fairseq_seqkd.pseudo import generate

    for module in (build, generate):
        module.chunk_size = lambda sentences: 4
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    main.main(arguments)


def start_command(*arguments):
    """Start a subcommand of ``fairseq-seqkd``."""
    child = PROCESSES.Process(target=run_command, args=([*map(str, arguments)],))
    child.start()
    return child


def ended_well(child):
    """Whether a process did, once it has ended."""
    child.join()
    return child.exitcode == 0
