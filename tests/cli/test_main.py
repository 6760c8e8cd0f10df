import subprocess
import sys
from pathlib import Path

import pytest
from conftest import USER_DIR

from fairseq_seqkd.cli import user_dir
from fairseq_seqkd.cli.evaluate import parse_named_paths
from fairseq_seqkd.cli.help import help_page
from fairseq_seqkd.cli.help.__main__ import help_of
from fairseq_seqkd.cli.main import SUBCOMMANDS, main


def test_user_dir_is_this_package(capsys):
    main(["user-dir"])
    assert capsys.readouterr().out == USER_DIR + "\n"


def test_console_script():
    program = Path(sys.executable).parent / "fairseq-seqkd"
    result = subprocess.run([program, "user-dir"], capture_output=True, text=True, check=True)
    assert result.stdout == USER_DIR + "\n"
    assert "tensorboardX" not in result.stderr  # fairseq's advice to everybody


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse lays out help in another way")
@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_is_that_of_the_parser(name):
    """``make flags`` writes the files."""
    assert help_page(name) == help_of(name)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    _, example = capsys.readouterr().out.split("Example:\n")
    assert f"fairseq-seqkd {name}" in example.split("\n\n")[0]


def test_help_lists_every_subcommand(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(f"\n    {name} " in listed for name in SUBCOMMANDS)


@pytest.mark.parametrize("arguments", [[], ["no-such"], ["--no-such"]])
def test_no_such_subcommand(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "fairseq-seqkd: error:" in capsys.readouterr().err


def test_evaluate_prints_and_writes_the_table(data, teacher, tmp_path, capsys):
    out = tmp_path / "report"
    checkpoints = ["--checkpoints", f"teacher={teacher}", f"copy={teacher}"]
    main(
        ["evaluate", str(data), *checkpoints, "--beams", "1", "--rounds", "1"]
        + ["--out", str(out)]
    )
    table, written = capsys.readouterr().out.split("\n\nWritten to ")
    assert (out / "report.md").read_text().startswith(table)
    assert "| teacher" in table and "| copy" in table and "report.md" in written


def test_error_is_one_line(data, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(data), "--checkpoints", "x.pt"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fairseq-seqkd evaluate: no checkpoint at 'x.pt'")


def test_interrupted(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(user_dir, "run", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main(["user-dir"])
    assert capsys.readouterr().err == "fairseq-seqkd user-dir: interrupted\n"


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["a=x/y.pt"], {"a": "x/y.pt"}),
        (["x/y.pt"], {"y": "x/y.pt"}),
        (["a b=1.pt", "c=1.pt"], {"a b": "1.pt", "c": "1.pt"}),
        (["s=lr=0.1/c.pt"], {"s": "lr=0.1/c.pt"}),
        (["x/a.pt:x/b.pt"], {"a+b": "x/a.pt:x/b.pt"}),
    ],
)
def test_checkpoints_are_named(arguments, expected):
    assert parse_named_paths(arguments, "--checkpoints") == expected


def test_two_checkpoints_of_one_name():
    with pytest.raises(ValueError, match="--checkpoints has 'best' twice"):
        parse_named_paths(["a/best.pt", "b/best.pt"], "--checkpoints")


def test_a_report_in_a_file(data, teacher, tmp_path, capsys):
    """Said before there is work done for it."""
    (tmp_path / "file").write_text("")
    flags = ["--checkpoints", str(teacher), "--out", str(tmp_path / "file" / "new")]
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(data), *flags])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"but '{tmp_path}/file' is a file: name a folder" in line


HELP_OF_EACH = [[name, "--help"] for name in SUBCOMMANDS]


@pytest.mark.parametrize("arguments", [["user-dir"], ["--help"], *HELP_OF_EACH])
@pytest.mark.parametrize("program", [["-m", "fairseq_seqkd.cli.main"], ["fairseq-seqkd"]])
def test_starts_without_torch_and_fairseq(program, arguments):
    """Every recipe and command line calls user-dir; importing them takes seconds."""
    if program[0] == "fairseq-seqkd":
        program = [Path(sys.executable).parent / program[0]]
    command = [sys.executable, "-X", "importtime", *program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "fairseq", "numpy", "omegaconf"}


REGISTERED = """
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.tasks import TASK_REGISTRY
assert "word_kd" in CRITERION_REGISTRY and "translation_seqkd" in TASK_REGISTRY
import argparse, torch
if hasattr(torch.serialization, "get_safe_globals"):
    assert argparse.Namespace in torch.serialization.get_safe_globals()
"""


@pytest.mark.parametrize(
    "first, second", [("fairseq", "fairseq_seqkd"), ("fairseq_seqkd", "fairseq")]
)
def test_importing_the_package_registers_it(first, second):
    code = f"import {first}\nimport {second}\n{REGISTERED}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_that_runs_with_m_registers_it_too(tmp_path):
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").write_text("import fairseq_seqkd\n")
    (tmp_path / "tool" / "run.py").write_text(REGISTERED)
    subprocess.run([sys.executable, "-m", "tool.run"], cwd=tmp_path, check=True)
