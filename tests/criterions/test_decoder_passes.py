"""TIE-KD's passes of the decoder: their contexts, their loss, and what is refused."""

import numpy as np
import pytest
import torch
from float64 import kl64, loss_at, rows_of

from fairseq_seqkd.criterions.decoder_passes import argmax_context, argmax_loss
from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.teacher import load_teacher

TIE_KD = {"kd_divergence": "ranked_kl", "kd_passes": 3}


def test_the_context_hand_worked():
    """EOS and padding (1) stay; padding is no token, however probable."""
    context = torch.tensor([[2, 5, 6, 1], [1, 7, 4, 5]])
    logits = torch.zeros(2, 4, 8)
    for row, best in enumerate([[4, 3, 5, 6], [3, 6, 7, 4]]):
        logits[row, range(4), best] = 2.0
    logits[0, 1, 1] = 9.0
    before, positions = logits.clone(), TargetPositions(context.ne(1))
    expected = [[2, 4, 3, 1], [1, 7, 6, 7]]
    picked = positions.take(logits)
    assert argmax_context(context, picked, positions, 1).tolist() == expected
    assert torch.equal(logits, before)


def ranking(p, q, n=5):
    """R of one position."""
    a, b = np.argsort(-q, kind="stable")[:n], np.argsort(-p, kind="stable")[:n]
    value = sum(max(0, p[v] - p[a[0]]) for v in a)
    return value + sum(max(0, p[w] - p[v]) for v in a for w in b if q[v] > q[w])


def test_equals_float64_computation(training, task, student, teacher, batch):
    """Every pass through the whole models, without any of what the criterion shares."""
    criterion = training(**TIE_KD, label_smoothing=0.1)
    pad, frozen = task.target_dictionary.pad(), load_teacher(str(teacher))
    inputs, nll, divergences = batch["net_input"], 0.0, []
    for number in range(3):
        sample = {**batch, "net_input": inputs}
        divergences.append(0.0)
        context = inputs["prev_output_tokens"].clone()
        for row, (p, q, target) in enumerate(rows_of(student, frozen, sample, pad)):
            divergences[-1] += sum(kl64(*pair[::-1]) + ranking(*pair) for pair in zip(p, q))
            context[row, 1 : len(p)] = torch.from_numpy(p.argmax(-1)[:-1])
            if number == 0:
                label = np.full(p.shape, 0.1 / (p.shape[-1] - 1))
                label[range(len(target)), target] = 0.9
                nll -= (label * np.log(p)).sum()
        inputs = {**inputs, "prev_output_tokens": context}
    assert len({round(value, 3) for value in divergences}) == 3
    expected = 0.5 * nll + 0.5 * np.mean(divergences)
    assert loss_at(0, criterion, student, batch) == pytest.approx(expected, rel=1e-5)
    criterion.eval()
    expected = 0.5 * nll + 0.5 * divergences[0]
    assert loss_at(0, criterion, student, batch) == pytest.approx(expected, rel=1e-5)


def test_both_models_encode_once(training, student, batch):
    criterion, calls = training(**TIE_KD), []
    frozen = criterion.get_teacher(student, torch.device("cpu"))
    frozen._encoded = None  # of an earlier test's batch
    for name, model in (("student", student), ("teacher", frozen.models[0])):
        handle = model.encoder.layers[0].register_forward_hook(
            lambda *_, name=name: calls.append(name)
        )
        handles = [handle]
    criterion(student, batch)
    for handle in handles:
        handle.remove()
    assert sorted(calls) == ["student", "teacher"]


def test_a_student_without_encoder_is_refused(training, student, batch):
    criterion = training(**TIE_KD)
    message = "--kd-passes is 3, but TransformerModel has no encoder to read again"
    with pytest.raises(ValueError, match=message):
        argmax_loss(criterion, student, [], None, batch, None, None, None)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kd_passes": 0}, "--kd-passes is 0, expected a whole number from 1 upwards"),
        (
            {"kd_passes": 3, "kd_cache": "cache"},
            "--kd-passes is 3 with --kd-cache 'cache': a cache has the teacher's distributions",
        ),
        (
            {"kd_passes": 2, "kd_prefixes": "student"},
            "--kd-passes is 2 with --kd-prefixes student: the passes make their own prefixes",
        ),
        (
            {"kd_passes": 2, "kd_weighting": "selective_global"},
            "--kd-passes is 2, but this method remembers student_nll of every batch",
        ),
        ({"kd_passes": 2, "kd_alpha": 0.0}, "--kd-passes is 2, but with --kd-alpha 0.0"),
    ],
)
def test_bad_configuration(training, values, message):
    with pytest.raises(ValueError, match=message):
        training(**values)
