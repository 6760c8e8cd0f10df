"""Measures every model as a teacher's draft: how much is accepted, and what that would save."""

from statistics import median

import torch

from fairseq_seqkd.decoding.rollout import can_generate
from fairseq_seqkd.decoding.speculative import DraftCounts, GreedyRule, SamplingRule
from fairseq_seqkd.evaluate.engines import model_on
from fairseq_seqkd.evaluate.report import DraftRow
from fairseq_seqkd.evaluate.speed import timed
from fairseq_seqkd.io.progress import WorkProgress
from fairseq_seqkd.teacher.drafting import DraftedTeacher, check_draft

_RULES = {"greedy": GreedyRule(), "samples": SamplingRule()}
_TIMED_SENTENCES = 20


def find_drafters(candidates, name, notes):
    """The models that can draft for a teacher.

    Args:
        candidates: {name: [`Candidate`, ...]}
        name: the teacher's; None: nothing is asked for
        notes: list of remarks on those that cannot, to be added to
    Returns:
        {name: [`Candidate`, ...]} without the teacher
    Raises:
        ValueError: there is no such model, it does not generate token by token, or no other
            model can draft for it
    """
    if name is None:
        return {}
    if name not in candidates:
        raise ValueError(
            f"--draft-for: no checkpoint is called {name!r}, expected one of "
            f"{', '.join(candidates)}"
        )
    teacher = candidates[name][0]
    if not all(map(can_generate, teacher.model.models)):
        raise ValueError(
            f"--draft-for: {name!r} does not generate token by token, expected a model that "
            "decodes from left to right"
        )
    drafters, reasons = {}, []
    for other, seeds in candidates.items():
        if other == name:
            continue
        try:
            check_draft(teacher.model, seeds[0].model)
            drafters[other] = seeds
        except ValueError as error:
            reasons.append(f"{other} does not draft for {name}: {error}")
    if not drafters:
        reasons = reasons or ["there is no other model in --checkpoints"]
        raise ValueError(f"--draft-for {name}: no model drafts for it: {'; '.join(reasons)}")
    notes.extend(reasons)
    return drafters


def measure_drafts(candidates, drafters, settings, devices):
    """Translate with every draft, greedily and by sampling, on every device.

    Args:
        candidates: {name: [`Candidate`, ...]}
        drafters: as `find_drafters` returns them
        settings: `Settings`
        devices: torch devices
    Returns:
        a list of `DraftRow`; of several seeds of a draft all are counted together
    """
    if not drafters:
        return []
    teacher = candidates[settings.draft_for][0]
    dataset = teacher.dataset
    sources = [dataset[id_]["source"] for id_ in range(len(dataset))]
    sources = [source for source in sources if len(source) > 1]
    times = len(devices) * len(_RULES) * sum(map(len, drafters.values()))
    tokens = times * sum(map(len, sources))
    rows = []
    with WorkProgress(tokens, times * len(sources), desc="drafting") as progress:
        for device in devices:
            model = model_on(teacher, device)
            for name, seeds in drafters.items():
                drafts = [model_on(seed, device) for seed in seeds]
                for row in _rows_of(model, drafts, sources, settings, progress):
                    rows.append(DraftRow(settings.draft_for, name, device.type, **row))
    return rows


def _rows_of(teacher, drafts, sources, settings, progress):
    """Yield the attributes of the `DraftRow` of every way of decoding.

    Args:
        teacher: `Teacher`
        drafts: `Teacher` list, the seeds of a draft
        sources: list of (length,) token ids
        settings: `Settings`
        progress: `WorkProgress`
    """
    search = settings.search(beam=1)
    steps = step_seconds([teacher, drafts[0]], sources, settings.rounds, search)
    cost_ratio = steps[1] / steps[0]
    for decoding, rule in _RULES.items():
        counted = DraftCounts()
        for draft in drafts:
            drafted = DraftedTeacher(teacher, draft, rule, settings.draft_tokens, search)
            counted += _count(drafted, sources, progress)
        yield {
            "decoding": decoding,
            "draft_tokens": settings.draft_tokens,
            "tokens": counted.tokens,
            "drafted_per_round": counted.drafted_per_round,
            "accepted_per_round": counted.accepted_per_round,
            "acceptance_rate": counted.acceptance_rate,
            "block_efficiency": counted.block_efficiency,
            "teacher_step_seconds": steps[0],
            "step_seconds": steps[1],
            "cost_ratio": cost_ratio,
            "expected_speedup": counted.expected_speedup(cost_ratio),
        }


def _count(drafted, sources, progress):
    drafts = DraftCounts()
    for id_, source in enumerate(sources):
        drafts += drafted(source, id_).drafts
        progress.add(len(source))
    return drafts


@torch.no_grad()
def step_seconds(models, sources, rounds, search):
    """The seconds that each model takes to read a token of a target; models take turns.

    Args:
        models: `Teacher` list; all read the first one's greedy output
        sources: list of (length,) token ids; the first ones are timed
        rounds: number of timed rounds, after one that warms up; the median counts
        search: `SearchOptions` of the output
    """
    inputs, contexts = [], []
    for source in sources[:_TIMED_SENTENCES]:
        source = source.to(models[0].device).unsqueeze(0)
        lengths = source.new_tensor([source.size(1)])
        inputs.append({"src_tokens": source, "src_lengths": lengths})
        (found,) = models[0].generate(inputs[-1], search)
        end = models[0].task.target_dictionary.eos()
        contexts.append(torch.cat([source.new_tensor([end]), found[0]["tokens"][:-1]]))
    seconds = [[] for _ in models]
    for round_ in range(-1, rounds):
        passed = [_read_all(model, inputs, contexts) for model in models]
        for one, times in zip(passed, seconds):
            times.extend([one] * (round_ >= 0))
    steps = sum(map(len, contexts))
    return [median(times) / steps for times in seconds]


def _read_all(model, inputs, contexts):
    """The seconds in which a model reads some contexts token by token, without its encoder."""
    seconds = 0.0
    for net_input, context in zip(inputs, contexts):
        scorer = model.incremental_scorer(net_input)

        def read_tokens(context, scorer=scorer):
            for length in range(1, len(context) + 1):
                scorer.next_lprobs(context[None, :length])

        seconds += timed(read_tokens, context)[1]
    return seconds
