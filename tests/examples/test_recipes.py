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


def test_multi30k_refuses_other_files_than_the_published(tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    for split in ("train", "val", "test_2016_flickr"):
        for side in ("de", "en"):
            (data / f"{split}.{side}.gz").write_bytes(b"something else")
    output = run_script("multi30k/claims.sh", fails=True, DATA=data, WORK=work)
    assert "are not the published ones" in output
    assert not (work / "data-bin").exists()


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
