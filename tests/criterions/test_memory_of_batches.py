"""What a method remembers from batch to batch: saved, restored, the same on all processes."""

import torch
from conftest import ranks, train

from fairseq_seqkd.models.checkpoints import read_checkpoint

GLOBAL = ["--criterion", "distill", "--kd-weighting", "selective_global"]


def queue_in(checkpoint):
    return read_checkpoint(str(checkpoint))["task_state"]["fairseq_seqkd"]["student_nll"]


def common(teacher):
    return ["--task", "translation", "--teacher-path", teacher, "--dropout", 0]


def test_all_processes_have_the_same_queue(data, teacher, tmp_path):
    """With a student that stays as it is, two processes see the tokens that one does."""
    run = [*common(teacher), *GLOBAL, "--lr", 0, "--max-update", 2]
    train(data, tmp_path / "one", *run, "--update-freq", 2)
    ranks(2, data, tmp_path / "two", *run)
    one, two = (queue_in(tmp_path / name / "checkpoint_last.pt") for name in ("one", "two"))
    assert len(one) > 100
    torch.testing.assert_close(one.sort().values, two.sort().values)


def test_a_checkpoint_without_it_cannot_be_continued(data, teacher, tmp_path):
    plain = ["--criterion", "distill", "--max-update", 1]
    train(data, tmp_path, *common(teacher), *plain)
    more = ["--max-update", 2]
    output = train(data, tmp_path, *common(teacher), *GLOBAL, *more, fails=True)
    assert "was saved by a training that remembers nothing from batch to batch" in output
    assert "--finetune-from-model" in output


def test_validation_changes_nothing(data, teacher, tmp_path):
    run = [*common(teacher), *GLOBAL, "--max-update", 4]
    train(data, tmp_path / "often", *run, "--validate-interval-updates", 1)
    train(data, tmp_path / "never", *run, "--disable-validation")
    often, never = (
        queue_in(tmp_path / name / "checkpoint_last.pt") for name in ("often", "never")
    )
    assert torch.equal(often, never)


def test_a_checkpoint_that_remembers_something_else_is_refused(data, teacher, tmp_path):
    train(data, tmp_path, *common(teacher), *GLOBAL, "--max-update", 1)
    skew = ["--criterion", "distill", "--kd-divergence", "adaptive_skew_kl"]
    output = train(data, tmp_path, *common(teacher), *skew, "--max-update", 2, fails=True)
    assert (
        "remembers student_nll from batch to batch, and this one remembers skew_gaps" in output
    )
