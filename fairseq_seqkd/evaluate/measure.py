"""Translates splits with every model, engine and beam, and measures quality and speed."""

import tempfile

import numpy as np
import torch

from fairseq_seqkd.evaluate.corpus import Corpus
from fairseq_seqkd.evaluate.defects import count_defects
from fairseq_seqkd.evaluate.drafting import find_drafters, measure_drafts
from fairseq_seqkd.evaluate.engines import check_engines, torch_devices
from fairseq_seqkd.evaluate.loading import load_candidates, notes_on_data, summarise
from fairseq_seqkd.evaluate.outputs import name_outputs, text_files
from fairseq_seqkd.evaluate.report import Report, row_name
from fairseq_seqkd.evaluate.runs import prepare_runs, texts_of, translate
from fairseq_seqkd.evaluate.scoring import score_runs
from fairseq_seqkd.evaluate.side_by_side import compare_sentences
from fairseq_seqkd.evaluate.versions import collect_versions


def evaluate(checkpoints, settings):
    """Compare models on one or several splits.

    Args:
        checkpoints: {name: checkpoint path}; the paths of several seeds of a model are
            separated by commas
        settings: `Settings`
    Returns:
        a `Report`, and its output files as `text_files` returns them
    Raises:
        FileNotFoundError, ValueError: as for `load_candidates`, `row_name`, `Corpus.load` and
            `load_into_engines`; or a sentence has no translation
    """
    check_engines(settings.engines or (), settings.shortlists)
    devices = torch_devices(settings.devices)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    candidates = load_candidates(checkpoints, settings)
    beams = {name: settings.beams_of(seeds[0]) for name, seeds in candidates.items()}
    against = [row_name(text, beams) for text in settings.against]
    pair = [row_name(text, beams, "--side-by-side") for text in settings.side_by_side]
    first, notes = next(iter(candidates.values()))[0], notes_on_data(candidates)
    drafters = find_drafters(candidates, settings.draft_for, notes)
    ways = first.detokenise, first.detokenise_source
    corpus = Corpus.load(first.splits, *ways, settings.reference_files)
    report = Report(
        settings.split,
        len(corpus),
        [summarise(*item) for item in candidates.items()],
        [],
        notes=notes + _notes_on_text(corpus.references),
        versions=collect_versions(devices),
        splits={split.name: len(split) for split in first.splits},
        lenpen_split=settings.tune_lenpen,
        against=list(dict.fromkeys(against)),
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = prepare_runs(candidates, settings, devices, folder, report.notes)
        translate(runs, corpus.lengths, settings.rounds, devices)
    _add_texts(runs, corpus)
    report.rows = [run.row for run in runs]
    name_outputs(report.rows, settings.split_names)
    score_runs(report, runs, corpus)
    count_defects(report, runs, corpus)
    compare_sentences(report, runs, corpus, pair)
    report.drafts = measure_drafts(candidates, drafters, settings, devices)
    for summary in report.models:
        _measure_mode(summary, [run for run in runs if run.row.model == summary.name])
    return report, text_files(corpus, runs)


def _add_texts(runs, corpus):
    for run in runs:
        for seed in run.seeds:
            seed.texts.extend(texts_of(seed, run.row, corpus))


def _notes_on_text(references):
    marks = [mark for mark in ("▁", "@@ ") if any(mark in line for line in references)]
    if not marks:
        return []
    return [
        f"The references contain {marks[0].strip()!r}: the scores are computed on subwords, "
        "and are higher than on text. Join subwords with --remove-bpe, and give --ref a file "
        "of plain text."
    ]


def _measure_mode(summary, runs):
    """Fill in how peaked a model's distribution is around its beam output.

    Args:
        summary: the model's `ModelSummary`
        runs: the model's runs
    """
    if runs[0].row.iterations is not None:
        return  # it gives no probability to a whole target
    engine = min(runs, key=lambda run: run.row.engine != "fairseq").row.engine
    runs = [run for run in runs if run.row.engine == engine]
    largest = max(runs, key=lambda run: run.row.beam)
    if engine == "fairseq":
        lprobs = [lprob for seed in largest.seeds for _, lprob in seed.outputs.values()]
        summary.mode_mass = float(np.exp(lprobs).mean())
    greedy = [run for run in runs if run.row.beam == 1]
    if greedy and largest.row.beam > 1:
        equal = [
            np.array_equal(other.outputs[i][0], tokens)
            for seed, other in zip(largest.seeds, greedy[0].seeds)
            for i, (tokens, _) in seed.outputs.items()
        ]
        summary.greedy_equals_beam = float(np.mean(equal))
