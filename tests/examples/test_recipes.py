import os
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = sorted((ROOT / "examples").rglob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_is_valid_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


def test_multi30k_refuses_other_files_than_the_published(tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    for split in ("train", "val", "test_2016_flickr"):
        for side in ("de", "en"):
            (data / f"{split}.{side}.gz").write_bytes(b"something else")
    recipe = ["bash", ROOT / "examples" / "multi30k" / "distill.sh"]
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
