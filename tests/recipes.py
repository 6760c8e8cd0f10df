"""Runs the scripts of ``examples/``, and reads the tables that they print."""

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import warm_start
from conftest import ROOT


@functools.lru_cache(maxsize=None)
def warm_programs():
    """A folder with fairseq's and this package's commands, which start at once."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "socket")
    server = subprocess.Popen([sys.executable, warm_start.__file__, path])
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    warm_start.write_clients(folder, path)
    while not os.path.exists(path):
        assert server.poll() is None, "the server of commands has ended"
        time.sleep(0.1)
    return folder


def run_script(script, programs=None, fails=False, warm=True, **settings):
    """Run a script without a network; returns its output.

    Args:
        script: its path in ``examples/``
        programs: a folder whose programs come before all others; None: no such folder
        fails: whether the script is expected to fail
        warm: False for a script that times its commands
        settings: environment variables
    """
    path = [
        programs,
        warm and warm_programs(),
        os.path.dirname(sys.executable),
        os.environ["PATH"],
    ]
    path = os.pathsep.join(str(folder) for folder in path if folder)
    no_network = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    result = subprocess.run(
        ["bash", ROOT / "examples" / script],
        env={
            **os.environ,
            "PATH": path,
            **no_network,
            **{k: str(v) for k, v in settings.items()},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (result.returncode != 0) == fails, result.stdout
    return result.stdout


def scores_of(text):
    """The rows of a report's table of scores, which has BLEU and speed, without its head."""
    lines = text.splitlines()
    (begin,) = (i for i, line in enumerate(lines) if re.match(r"\|.*BLEU.*sentences/s", line))
    end = next((i for i in range(begin, len(lines)) if not lines[i].startswith("|")), None)
    return rows_of("\n".join(lines[begin + 2 : end]))


def rows_of(text):
    """The cells of all lines of all Markdown tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
