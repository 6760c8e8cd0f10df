"""``fairseq-seqkd doctor`` on this machine, and where fairseq does not import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.doctor.installation import inspect_installation


def test_this_installation():
    found = inspect_installation()
    assert found.errors == {}
    assert str(torch.__version__).startswith(found.versions["torch"])
    assert found.fairseq_path.endswith(os.path.join("fairseq", "__init__.py"))
    assert found.drops_sentences == ("fairseq-fixed" in found.versions)


def test_command(teacher, capsys):
    main(["doctor", str(teacher)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "nothing is wrong"
    assert any(f"{teacher} loads: translation, cross_entropy" in line for line in lines)


def test_exit_status(capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", "no/such.pt"])
    assert capsys.readouterr().out.endswith("\n1 trouble\n")


class TestBrokenFairseq:
    """A fairseq that does not import hides the installed one."""

    @pytest.fixture
    def python(self, tmp_path):
        (tmp_path / "fairseq").mkdir()
        (tmp_path / "fairseq" / "__init__.py").write_text(
            "raise ValueError('mutable default CommonConfig')\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

        def run(*arguments):
            return subprocess.run(
                [sys.executable, *arguments],
                env=environment,
                capture_output=True,
                text=True,
            )

        return run

    def test_doctor(self, python, tmp_path):
        program = str(Path(sys.executable).parent / "fairseq-seqkd")
        done = python(program, "doctor", "x.pt")
        path = tmp_path / "fairseq" / "__init__.py"
        found = f"imported from {path}; does not import: ValueError: mutable default Common"
        assert done.returncode == 1
        assert "\ntrouble fairseq        fairseq" in done.stdout and found in done.stdout
        assert "x.pt           was not examined" in done.stdout
        assert done.stdout.endswith("\n1 trouble\n")

    def test_import_names_the_doctor(self, python):
        done = python("-c", "import fairseq_seqkd")
        assert done.returncode == 0
        assert "mutable default CommonConfig" in done.stderr
        assert "fairseq-seqkd doctor" in done.stderr

    def test_what_needs_fairseq_is_the_error_itself(self, python):
        done = python("-c", "from fairseq_seqkd.teacher import load_teacher")
        assert done.returncode == 1
        assert done.stderr.endswith("\nValueError: mutable default CommonConfig\n")

    def test_other_subcommands_name_the_doctor(self, python):
        done = python("-m", "fairseq_seqkd.cli.main", "generate", "DATA")
        assert done.returncode == 2
        *_, line = done.stderr.splitlines()
        assert line.startswith("fairseq-seqkd generate: ValueError: mutable default")
        assert line.endswith("Next: fairseq-seqkd doctor")

    def test_list_of_subcommands(self, python):
        done = python("-m", "fairseq_seqkd.cli.main", "--help")
        assert done.returncode == 0 and "Export a student" in done.stdout

    def test_help_of_a_subcommand(self, python):
        done = python("-m", "fairseq_seqkd.cli.main", "generate", "--help")
        assert done.returncode == 0 and "--pseudo-targets" in done.stdout


def test_an_error_of_the_plug_in_stops_fairseq_train():
    """With --user-dir, fairseq is imported first, and must not go on without this package."""
    code = "import sys, types; sys.modules['fairseq'] = types.ModuleType('fairseq')\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "import fairseq_seqkd"], stderr=subprocess.PIPE
    )
    assert done.returncode == 1 and b"fairseq" in done.stderr.splitlines()[-1]


def test_a_plug_in_that_lacks_a_package(tmp_path):
    (tmp_path / "sacrebleu.py").write_text("raise ImportError('no sacrebleu here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_seqkd.cli.main", "doctor"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert done.returncode == 1
    assert b"does not import: ImportError: no sacrebleu here" in done.stdout
