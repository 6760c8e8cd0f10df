"""A step holds two tensors of positions x vocabulary: the logits, and their gradient."""

import pytest
import torch
import torch.utils._python_dispatch as dispatch
from omegaconf import OmegaConf

from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.criterions.text_weights import LossWeights
from fairseq_seqkd.losses import blockwise_sum as chunks
from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.losses.divergences import DIVERGENCES
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import LazyLogits

if torch.__version__ < "2.0":
    pytest.skip("earlier versions do not tell what they make", allow_module_level=True)


class LargeTensors(dispatch.TorchDispatchMode):
    """Notes which operations make tensors of at least so many numbers, but for views."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.made_by = []

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        if torch.is_tensor(result) and result.numel() >= self.size:
            given = [one for one in arguments if torch.is_tensor(one)]
            shared = any(one.data_ptr() == result.data_ptr() for one in given)
            if not shared:
                self.made_by.append(str(operation))
        return result


@pytest.mark.parametrize("k", [None, 5])
@pytest.mark.parametrize("divergence", DIVERGENCES.options)
def test_the_loss_keeps_one_tensor_of_positions_by_vocabulary(
    task, teacher, monkeypatch, divergence, k
):
    head = {"kd_head": 3} if divergence == "decoupled" else {}
    common = {"sentence_avg": False, "seed": 1, "max_update": 10, "label_smoothing": 0.1}
    config = DistillConfig(
        teacher_path=str(teacher), kd_divergence=divergence, kd_top_k=k, **common, **head
    )
    criterion = DistillCriterion(task, OmegaConf.structured(config)).eval()
    student = load_models(str(teacher))[0][0]
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[i] for i in range(20)])
    positions = TargetPositions(batch["target"].ne(task.target_dictionary.pad()))
    logits = positions.take(student(**batch["net_input"])[0].detach()).requires_grad_()
    target = positions.take(batch["target"])
    no_student_rows = torch.zeros(len(batch["target"]), dtype=torch.bool)
    frozen = criterion.get_teacher(student, torch.device("cpu"))
    monkeypatch.setitem(chunks._BLOCK_ELEMENTS, "cpu", logits.numel() // 10)
    monkeypatch.setattr(LazyLogits, "_AT_ONCE", 1)
    with LargeTensors(logits.numel() // 4) as large:
        comparator = criterion.build_comparator(frozen, batch, positions)
        loss, _ = criterion.token_loss(
            logits, target, positions, no_student_rows, comparator, LossWeights(0.5)
        )
        loss.backward()
    assert [name for name in large.made_by if "empty" not in name] == []
    assert len(large.made_by) == 1  # the gradient
