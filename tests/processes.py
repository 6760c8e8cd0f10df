"""Runs commands in processes of their own, which may be killed.

They are forked from a server process that has imported fairseq, since importing takes longer
than the rest, and nothing of this package. The server has no threads: a lock that a thread
holds at the moment of a fork, such as a progress bar's, would block the child for ever.
"""

import atexit
import builtins
import errno
import fcntl
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [f"fairseq_cli.{name}" for name in ("train", "generate", "preprocess", "hydra_train")]
    + ["sacrebleu", "tabulate", "torch._dynamo"]
)


class Failed(Exception):
    """A command ended otherwise than expected; its output is the message."""


def run_module(module, arguments, output, folder=None):
    """In the child: run ``python -m module arguments`` in a folder; stdout goes to a file."""
    os.chdir(folder or os.getcwd())
    with open(output, "w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.argv = [module, *arguments]
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def start(command, *arguments, folder=None):
    """Start a fairseq command such as ``train``; ``seqkd`` is ``fairseq-seqkd``.

    Returns:
        the process, and the file with its output, as `output_of` takes them
    """
    handle, output = tempfile.mkstemp()
    os.close(handle)
    module = "fairseq_seqkd.cli.main" if command == "seqkd" else f"fairseq_cli.{command}"
    arguments = module, [*map(str, arguments)], output, folder
    process = PROCESSES.Process(target=run_module, args=arguments)
    process.start()
    return process, output


def output_of(started, fails=False):
    """Wait for a command to end; returns its output.

    Args:
        started: the result of `start`
        fails: whether it is expected to fail
    Raises:
        Failed: it failed, or did not although it was expected to
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
    """Run a command to its end; returns its output. See `start` and `output_of`."""
    return output_of(start(command, *arguments, folder=folder), fails=fails)


def run_command(arguments, prepare=None):
    """In the child: run a subcommand of ``fairseq-seqkd`` with small chunks, silently.

    Args:
        arguments: its arguments
        prepare: called first
    """
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
    if prepare:
        prepare()
    main.main(arguments)


def start_command(*arguments, prepare=None):
    """Start a subcommand of ``fairseq-seqkd`` as `run_command` does; returns the process."""
    child = PROCESSES.Process(target=run_command, args=([*map(str, arguments)], prepare))
    child.start()
    return child


def without_locks():
    """Fake a file system that has no locks."""
    fcntl.flock = _refuse_lock


def _refuse_lock(file, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def dies_while_writing(n_flushes=0):
    """The process is killed when it flushes a file or folder to the disk after so many."""
    left, flush = iter(range(n_flushes)), os.fsync

    def flush_or_die(descriptor):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    os.fsync = flush_or_die


def dies_without_locks():
    """The process writes the manifest and three chunks, and is killed in the fourth."""
    without_locks()
    dies_while_writing(8)  # each a file and its folder


class LateHost:
    """Fakes a host of several, without locks, that sees others' renames after a while.

    Args:
        rank, world_size: of this process
    """

    SECONDS = 0.5

    def __init__(self, rank, world_size):
        self.environment = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": 1}
        self.mine, self.noticed = set(), {}

    def __call__(self):
        from fairseq_seqkd.io import files

        without_locks()
        os.environ.update({key: str(value) for key, value in self.environment.items()})
        files._HOST = f"host-{self.environment['RANK']}"
        for name in ("rename", "replace", "link"):
            setattr(os, name, self._noting(getattr(os, name)))
        self.open, self.exists, self.listdir = open, os.path.exists, os.listdir
        builtins.open, os.path.exists, os.listdir = self._open, self._exists, self._listdir

    def _noting(self, function):
        def noting(old, new, **options):
            function(old, new, **options)
            self.mine.add(os.path.abspath(new))

        return noting

    def _hidden(self, path):
        if not isinstance(path, (str, os.PathLike)):
            return False
        folder, path = os.path.dirname(os.path.abspath(path)), os.path.abspath(path)
        if folder.endswith("/best"):  # as a whole
            path = folder
        if path in self.mine or not path.endswith(LATE_NAMES) or not self.exists(path):
            return False
        age = time.time() - self.noticed.setdefault(path, time.time())
        return age < self.SECONDS

    def _open(self, path, mode="r", *arguments, **options):
        if "r" in mode and self._hidden(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.open(path, mode, *arguments, **options)

    def _exists(self, path):
        return self.exists(path) and not self._hidden(path)

    def _listdir(self, path="."):
        return [n for n in self.listdir(path) if not self._hidden(os.path.join(path, n))]


LATE_NAMES = (".json", ".npz", "/best")


def ended_well(child):
    """Wait for a process to end; returns whether its exit status was 0."""
    child.join()
    return child.exitcode == 0


def read_in_three_forks(path, queue):
    """In the child: open a data set of the older format, then read it in three forks."""
    import torch

    from fairseq_seqkd.models.datasets import RandomAccessDataset

    dataset = RandomAccessDataset(path, fix_lua_indexing=True)
    first = dataset[5].tolist()  # opens the file
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=3, multiprocessing_context="fork"
    )
    queue.put((first, [tokens.tolist() for tokens in loader]))
