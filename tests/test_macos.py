"""The commands without what only Linux has, and with processes that are spawned."""

import os
import subprocess
import sys

import pytest

# Run by every spawned process as well, which imports its parent's main module.
SCRIPT = """
import builtins, io, multiprocessing, os, shlex, sys

for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate",
             "memfd_create", "copy_file_range", "getrandom", "eventfd", "splice", "pidfd_open"):
    if hasattr(os, name):
        delattr(os, name)

open_anything = builtins.open

def open_without_proc(file, *arguments, **keywords):
    if not isinstance(file, int) and os.fsdecode(file).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", file)
    return open_anything(file, *arguments, **keywords)

builtins.open = io.open = open_without_proc

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from fairseq_seqkd.cli.main import main

    for line in sys.stdin.read().splitlines():
        print("==", line, flush=True)
        main(shlex.split(line))
else:
    print("a process was spawned", flush=True)
"""


@pytest.fixture(scope="module")
def output(data, teacher, tmp_path_factory):
    """The output of all commands, run in one process."""
    folder = tmp_path_factory.mktemp("macos")
    (folder / "script.py").write_text(SCRIPT)
    commands = f"""\
generate {data} --teacher-path {teacher} --pseudo-targets store --engine fairseq --beam 4 \
--select closest --threads 2
cache {data} --teacher-path {teacher} --kd-cache cache
prune {teacher} pruned.pt --sparsity 0.5
evaluate {data} --checkpoints pruned.pt --engines fairseq --rounds 1 --beams 1
export pruned.pt --to fairseq --out student.pt
export pruned.pt --to sparse --out student.safetensors
doctor student.pt --teacher-data {data}
"""
    done = subprocess.run(
        [sys.executable, "script.py"],
        input=commands,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    "command, expected",
    [
        ("generate", "a process was spawned"),
        ("generate", "closest: "),
        ("cache", "--kd-cache cache"),
        ("prune", "50.00 % of the weights are zero"),
        ("evaluate", "| pruned "),
        ("export pruned.pt --to fairseq", "student.pt: "),
        ("export pruned.pt --to sparse", "student.safetensors: "),
        ("doctor", "nothing is wrong"),
    ],
)
def test_command(output, command, expected):
    (part,) = [part for part in output.split("== ") if part.startswith(f"{command} ")]
    assert expected in part.partition("\n")[2]
