import os
import subprocess
import sys

import pytest
from conftest import ROOT, load_split

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
    recipe = ["bash", ROOT / "examples" / "multi30k" / "claims.sh"]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    result = subprocess.run(
        recipe,
        env={**os.environ, "PATH": path, "DATA": str(data), "WORK": str(work)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode != 0
    assert "are not the published ones" in result.stdout
    assert not (work / "data-bin").exists()


def test_slurm_array_by_hand(data, teacher, tmp_path):
    """The job array's jobs, one after the other, with what Slurm would set."""
    script = ROOT / "examples" / "slurm" / "generate_array.sbatch"
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    own = {"DATA": str(data), "TEACHER": str(teacher), "STORE": str(tmp_path / "store")}
    outputs = []
    for number in (1, 0):
        slurm = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
        slurm.update(SHARDS="2", SLURM_ARRAY_TASK_ID=str(number))
        job = subprocess.run(
            ["bash", script],
            env={**os.environ, "PATH": path, "FLAGS": "--beam 2", **own, **slurm},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        outputs.append(job.stdout)
    assert "1 chunks of" in outputs[0] and "sentences translated by the teacher" in outputs[1]
    assert len(load_split(tmp_path / "store" / "best").dataset) == 160
