"""The recipes' shell functions."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def shell(tmp_path):
    """A function that runs lines of a recipe in ``tmp_path``; returns the completed process."""
    # A substitute: recipes only ask for one path, and starting the real program takes seconds.
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "fairseq-seqkd").write_text("#!/bin/sh\n")
    (programs / "fairseq-seqkd").chmod(0o755)
    path = [str(programs), os.path.dirname(sys.executable), os.environ["PATH"]]

    def run(lines):
        head = f"set -euo pipefail; WORK=work; . {ROOT / 'examples' / 'lib.sh'}\n"
        return subprocess.run(
            ["bash", "-c", head + lines],
            cwd=tmp_path,
            env={**os.environ, "PATH": os.pathsep.join(path)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    "line, sentence",
    [
        ('<seg id="1"> Plain text. </seg>', "Plain text.\n"),
        ('  <seg id="12">no spaces</seg>', "no spaces\n"),
        (
            "<seg id='3'>&quot;A &amp; B&quot; &lt; it&apos;s &amp;lt;</seg>",
            '"A & B" < it\'s &lt;\n',
        ),
        ('<seg id="4"> </seg>', "\n"),
        ('<doc docid="1"><title>no sentence</title>', ""),
    ],
)
def test_segments(shell, tmp_path, line, sentence):
    (tmp_path / "set.sgm").write_text(line + "\n")
    assert shell("segments set.sgm").stdout == sentence


@pytest.mark.parametrize(
    "source, target, kept",
    [
        ("a b", "c d e", True),
        ("a b", "c d e f", False),  # more than 1.5 times as long
        ("a b c d", "c d", False),
        ("a b c d e", "a b c d e", True),
        ("a b c d e f", "a b c d e", False),  # longer than 5
        ("a", "", False),
        ("", "", False),
    ],
)
def test_keep_pairs(shell, tmp_path, source, target, kept):
    (tmp_path / "text.de").write_text(f"x\n{source}\n")
    (tmp_path / "text.en").write_text(f"y\n{target}\n")
    shell("keep_pairs text text.short de en 5 1.5")
    assert (tmp_path / "text.short.de").read_text() == "x\n" + f"{source}\n" * kept
    assert (tmp_path / "text.short.en").read_text() == "y\n" + f"{target}\n" * kept


class TestOnce:
    def test_does_what_is_not_there(self, shell, tmp_path):
        make = 'make() { echo "$1" >"$WORK/it.new"; }; once it "what it is" make '
        assert "== what it is" in shell(make + "first").stdout
        assert shell(make + "second").stdout == ""
        assert (tmp_path / "work" / "it").read_text() == "first\n"

    @pytest.mark.parametrize("failing", ["false", "run it false"])
    def test_an_interrupted_step_has_no_final_name(self, shell, tmp_path, failing):
        make = f'make() {{ echo half >"$WORK/it.new"; {failing}; echo more; }}; '
        result = shell(make + 'once it "what it is" make; echo "and on"')
        assert result.returncode != 0
        assert "more" not in result.stdout and "and on" not in result.stdout
        assert not (tmp_path / "work" / "it").exists()


class TestRun:
    def test_keeps_what_a_command_says(self, shell, tmp_path):
        shell('run it bash -c "echo out; echo err >&2"')
        assert (tmp_path / "work" / "logs" / "it.log").read_text() == (
            "$ bash -c echo\\ out\\;\\ echo\\ err\\ \\>\\&2\nout\nerr\n"
        )

    def test_an_interrupted_command_s_output_is_kept(self, shell, tmp_path):
        shell("run it bash -c 'echo first; exit 1'")
        shell("run it echo second")
        log = (tmp_path / "work" / "logs" / "it.log").read_text()
        assert re.findall("^(first|second)", log, re.M) == ["first", "second"]

    def test_with_a_file_for_standard_output(self, shell, tmp_path):
        shell('OUTPUT=table run it bash -c "echo out; echo err >&2"')
        assert (tmp_path / "table").read_text() == "out\n"
        log = (tmp_path / "work" / "logs" / "it.log").read_text()
        assert log.startswith("$ bash -c ") and log.splitlines()[1:] == ["err"]

    def test_a_failing_command(self, shell):
        result = shell('run it bash -c "echo why; exit 3"; echo "and on"')
        assert result.returncode != 0 and "and on" not in result.stdout
        assert "why" in result.stderr and "work/logs/it.log" in result.stderr


def test_wait_any(shell):
    """It returns the status of the child that ends first, and names it."""
    result = shell(
        """
        sleep 60 & slow=$!
        (exit 3) & quick=$!
        wait_any $slow $quick || status=$?
        kill $slow
        [ "$ended" = "$quick" ] && echo "status $status"
        """
    )
    assert result.stdout == "status 3\n"


def test_sha256_by_either_program(shell, tmp_path):
    """macOS has shasum in the place of sha256sum."""
    (tmp_path / "file").write_text("text\n")
    shasum = tmp_path / "programs" / "shasum"
    shasum.write_text('#!/bin/sh\nshift 2\nexec sha256sum "$@"\n')
    shasum.chmod(0o755)
    result = shell(
        """
        sha256 file >sums
        command() { return 1; }
        sha256 file | cmp - sums
        sha256 --check sums
        """
    )
    assert result.stdout == "file: OK\n"
