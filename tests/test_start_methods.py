"""Trainings whose data-loading processes are not forked, as on macOS and Python 3.14."""

import os
import subprocess
import sys

import pytest
from conftest import TINY, TRAINING, USER_DIR, logged

# Each process that loads data imports this script as well, without running it.
SCRIPT = """
import multiprocessing, sys

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1))
    from fairseq_cli.train import cli_main

    cli_main()
else:
    print("a process was started", flush=True)
"""


def train(method, data, folder, *arguments):
    """Run fairseq-train with a start method of processes; returns its output."""
    (folder / "script.py").write_text(SCRIPT)
    plugin = ["--user-dir", USER_DIR, "--save-dir", folder / "student"]
    flags = [*plugin, *TRAINING, *TINY, *arguments, "--num-workers", 1, "--max-update", 2]
    done = subprocess.run(
        [sys.executable, "script.py", method, *map(str, [data, *flags])],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "a process was started" in done.stdout
    return done.stdout


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_pseudo_targets_beside_gold(method, data, store, tmp_path):
    flags = ["--task", "translation_seqkd", "--pseudo-targets", store]
    loss = ["--criterion", "seq_kd", "--gold-weight", "0.5"]
    output = train(method, data, tmp_path, *flags, *loss)
    assert logged(output, "train")[-1]["train_num_updates"] == "2"
