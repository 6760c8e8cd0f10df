"""The Makefile's environment: made once, and anew for another Python."""

import subprocess
import sys

import pytest
from conftest import ROOT

MADE = "-m venv --clear"


@pytest.fixture
def steps(tmp_path):
    """steps(version, *arguments): what make would do with an environment of a given Python."""

    def steps(version, *arguments):
        (tmp_path / "bin").mkdir()
        python = tmp_path / "bin" / "python"
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
        (tmp_path / ".installed").touch()
        dry_run = ["make", "--dry-run", "test", f"VENV={tmp_path}", *arguments]
        return subprocess.check_output(dry_run, cwd=ROOT, text=True)

    return steps


def test_an_environment_is_used_again(steps):
    assert MADE not in steps("Python 3.9.1")


def test_of_the_same_python(steps):
    assert MADE not in steps(f"Python {sys.version.split()[0]}", f"PYTHON={sys.executable}")


def test_the_quickstart_runs_in_it_wherever_it_is(steps, tmp_path):
    assert f'PATH="{tmp_path}/bin:' in steps("Python 3.9.1", "quickstart")


def test_of_another_python(steps):
    assert MADE in steps("Python 3.9.1", f"PYTHON={sys.executable}")


def checks():
    """The Python code by which the Makefile judges a Python, one string a check."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("\t@$(PYTHON) -c '")]


def test_python_with_what_compiling_needs():
    _, headers = checks()
    without = "import sysconfig; sysconfig.get_path = lambda _: '/no/such'; "
    for code, status in ((headers, 0), (without + headers, 1)):
        assert subprocess.run([sys.executable, "-c", code]).returncode == status


@pytest.mark.parametrize("version, status", [("3.10.13", 1), ("3.13.0", 0), ("3.14.0", 1)])
def test_pythons_that_are_refused(version, status):
    check = checks()[0]
    info = tuple(map(int, version.split(".")))
    done = subprocess.run([sys.executable, "-c", check.replace("sys.version_info", str(info))])
    assert done.returncode == status
