import platform

import pytest
import torch

from fairseq_seqkd.evaluate import versions


def test_versions_of_what_is_installed():
    found = versions.collect_versions([torch.device("cpu")])
    assert found["python"] == platform.python_version() and found["processor"]
    # The local part, such as +cu102, is not always in the package's metadata.
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "gpu" not in found


@pytest.mark.parametrize("name, expected", [("arm", "arm"), ("", "arm64")])
def test_the_processor_where_there_is_no_proc(monkeypatch, tmp_path, name, expected):
    """As on macOS."""
    monkeypatch.setattr(versions, "_CPUINFO", str(tmp_path / "cpuinfo"))
    monkeypatch.setattr(platform, "processor", lambda: name)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert versions.collect_versions([])["processor"] == expected
