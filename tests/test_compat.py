import pickle

import pytest
import torch

import fairseq_seqkd  # noqa: F401  (the allow-list)

guarded = pytest.mark.skipif(
    not hasattr(torch.serialization, "add_safe_globals"),
    reason="before torch 2.6 torch.load runs every pickle; nothing can be allow-listed",
)


class RunsCode:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_torch_load_reads_a_fairseq_checkpoint(teacher):
    assert "model" in torch.load(teacher)


@guarded
def test_a_pickle_that_runs_code_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "was-executed"
    torch.save({"model": {}, "cfg": RunsCode(trace)}, tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.pt")
    assert not trace.exists()


@guarded
def test_the_allow_list_is_needed_and_complete(teacher):
    needed = torch.serialization.get_unsafe_globals_in_checkpoint(str(teacher))
    allowed = {
        f"{t.__module__}.{t.__qualname__}" for t in torch.serialization.get_safe_globals()
    }
    assert "argparse.Namespace" in needed or "argparse.Namespace" in allowed
    assert set(needed) <= allowed
