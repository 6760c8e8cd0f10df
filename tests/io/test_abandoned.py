"""Outputs of commands that were killed while they wrote them: the next run removes the rest."""

import os

import pytest
from conftest import CTRANSLATE2
from processes import dies_while_writing, ended_well, start_command

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import remove_partial_files

COMMANDS = {
    "prune": ["prune", "STUDENT", "OUT.pt", "--sparsity", "0.5"],
    "fairseq": ["export", "STUDENT", "--to", "fairseq", "--out", "OUT.pt"],
    "sparse": ["export", "STUDENT", "--to", "sparse", "--out", "OUT.safetensors"],
    "ctranslate2": ["export", "STUDENT", "--to", "ctranslate2", "--out", "OUT", "--no-check"],
}


@pytest.mark.parametrize(
    "name", ["prune", "fairseq", "sparse", pytest.param("ctranslate2", marks=CTRANSLATE2)]
)
def test_the_next_run_removes_what_a_killed_one_left(name, teacher, tmp_path):
    words = {"STUDENT": str(teacher)}
    command = [words.get(word, word) for word in COMMANDS[name]]
    command = [word.replace("OUT", f"{tmp_path}/out") for word in command]
    assert not ended_well(start_command(*command, prepare=dies_while_writing))
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".out") and left.endswith(".part")
    main(command)
    (out,) = os.listdir(tmp_path)
    assert out.startswith("out")


def test_files_of_other_names_and_of_running_processes_are_kept(tmp_path):
    host = os.uname().nodename.replace(".", "-")
    dead, alive = 2**22 + 1, os.getppid()  # the first is above the largest process number
    mine = [f".out.pt.{host}.{dead}.x.part", f".out.pt.extra.{host}.{dead}.x.part"]
    kept = [f".out.pt.{host}.{alive}.x.part", f".out.pt.elsewhere.{dead}.x.part", "x.part"]
    for name in [*mine, *kept]:
        (tmp_path / name).touch()
    remove_partial_files(tmp_path, "out.pt")
    assert sorted(os.listdir(tmp_path)) == sorted([*mine[1:], *kept])
    remove_partial_files(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
