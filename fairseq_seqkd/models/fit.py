"""Checks, before anything is computed, that a model scores every target token of a batch."""

import inspect

import torch

EXPECTED = (
    "Expected a model with one distribution for each target token: an encoder-decoder that "
    "decodes from left to right, or (without sources) a language model."
)
ON_TRANSLATIONS = (
    "It can learn from the teacher's translations: fairseq-seqkd generate DATA --teacher-path "
    "TEACHER --pseudo-targets STORE, then fairseq-train STORE/best with"
)


def check_student(model, sample):
    """Refuse a student that the criteria of this package cannot train.

    Args:
        model: without data-parallel wrappers
        sample: a batch as the task collates it
    Raises:
        ValueError: names the model, what it lacks, and what to do
    """
    who = f"--criterion: the student, {type(model).__name__},"
    misfit = misfit_of(model, sample["net_input"])
    if misfit is not None:
        raise ValueError(
            f"{who} {misfit}. {EXPECTED} {ON_TRANSLATIONS} fairseq's own criterion for it: "
            "--task translation_lev --criterion nat_loss, if it is non-autoregressive."
        )
    if has_adaptive_softmax(model):
        raise ValueError(
            f"{who} has an adaptive softmax, whose probabilities of the whole vocabulary have "
            "no gradient. Leave out --adaptive-softmax-cutoff (the teacher may have one). "
            f"{ON_TRANSLATIONS} --criterion adaptive_loss --ddp-backend legacy_ddp."
        )
    if not has_context_of_each_target(sample):
        raise ValueError(
            f"{who} is in a task whose batches have no position for each target token, such as "
            f"CTC and classification. {EXPECTED} Speech: --arch s2t_transformer."
        )


def check_teacher(model, net_input):
    """Refuse a teacher that cannot score the prefixes of a batch.

    Args:
        model: as for `check_student`
        net_input: the arguments of the student's forward, as fairseq collates them
    Raises:
        ValueError: names the model and what it lacks
    """
    misfit = misfit_of(model, net_input)
    if misfit is not None:
        raise ValueError(
            f"--teacher-path: the teacher, {type(model).__name__}, {misfit}. {EXPECTED} "
            "The student's task and the teacher's take batches of one kind, unless "
            "--teacher-source says what the teacher reads."
        )


def misfit_of(model, net_input):
    """Why a model cannot score the prefixes of a batch, in words; None if it can."""
    try:
        inspect.signature(model.forward).bind(**net_input)
    except TypeError as error:
        return f"does not take the batches of the task ({error})"
    if reads_source(model) == ("prev_output_tokens" in net_input):
        return None
    if reads_source(model):
        return "needs prefixes of targets (prev_output_tokens), which the task does not have"
    return "reads no prefixes of targets (prev_output_tokens) beside sources"


def reads_source(model):
    """Whether a model decodes targets of sources."""
    return hasattr(model, "encoder") and hasattr(model, "decoder")


def has_adaptive_softmax(model):
    """Whether the decoder's output layer is an adaptive softmax."""
    return getattr(getattr(model, "decoder", None), "adaptive_softmax", None) is not None


def has_context_of_each_target(sample):
    """Whether a batch has (batch, length) inputs of the decoder for (batch, length) targets."""
    net_input, target = sample["net_input"], sample.get("target")
    contexts = net_input.get("prev_output_tokens", net_input.get("src_tokens"))
    if not (torch.is_tensor(contexts) and torch.is_tensor(target)):
        return False
    return contexts.shape == target.shape and not target.is_floating_point()
