"""The recipes' scripts: their syntax, and steps that need no training."""

import subprocess

import pytest
from conftest import ROOT, load_split
from recipes import run_script

SCRIPTS = sorted(
    path for path in (ROOT / "examples").rglob("*") if path.suffix in (".sh", ".sbatch")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_is_valid_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


NAMES = [
    f"{split}.{side}.gz"
    for split in ("train", "val", "test_2016_flickr", "test_2018_flickr")
    for side in ("de", "en")
]


@pytest.fixture
def refuses(tmp_path):
    """refuses(files, settings...): the output of the Multi30k recipe, which fails."""

    def call(names, **settings):
        (tmp_path / "data").mkdir(exist_ok=True)
        for name in names:
            (tmp_path / "data" / name).write_bytes(b"something else")
        folders = {"DATA": tmp_path / "data", "WORK": tmp_path / "work"}
        output = run_script("multi30k/claims.sh", fails=True, **{**folders, **settings})
        assert not (tmp_path / "work" / "data-bin").exists()
        return output

    return call


class TestMulti30k:
    def test_other_files_than_the_published(self, refuses):
        assert "are not the published ones" in refuses(NAMES)

    def test_files_that_are_missing(self, refuses):
        output = refuses(NAMES[1:])
        assert "lacks some of these files" in output and "9204244e408c" in output
        assert "name it by DATA=folder" in output

    def test_a_folder_of_other_settings(self, refuses, tmp_path):
        refuses(NAMES)
        output = refuses(NAMES, TEACHER="x.pt", SPM="x.model", DICT="x.txt")
        assert "has been made with other settings" in output and "TEACHER=x.pt" in output

    def test_too_little_space(self, refuses):
        assert "MB left, expected 1000000000" in refuses(NAMES, SPACE=10**9)

    def test_an_unknown_row(self, refuses):
        assert "ROWS has a.wide.1, expected some of: none.wide.1" in refuses(
            NAMES, ROWS="a.wide.1"
        )


def test_slurm_array_by_hand(data, teacher, tmp_path):
    """The jobs of the job array, one after the other, with the variables that Slurm sets."""
    settings = {"DATA": data, "TEACHER": teacher, "STORE": tmp_path / "store"}
    of_slurm = {"SLURM_JOB_ID": 7, "SLURM_PROCID": 0, "SLURM_NTASKS": 1}
    outputs = [
        run_script(
            "slurm/generate_array.sbatch",
            FLAGS="--beam 2 --accept-unfinished 1",
            SHARDS=2,
            SLURM_ARRAY_TASK_ID=number,
            **settings,
            **of_slurm,
        )
        for number in (1, 0)
    ]
    assert "1 chunks of" in outputs[0] and "sentences translated by the teacher" in outputs[1]
    assert len(load_split(tmp_path / "store" / "best").dataset) == 160
