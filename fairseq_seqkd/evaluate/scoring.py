"""Fills the scores of all rows in: on all sentences, on each split, and by source length."""

from statistics import mean

import numpy as np

from fairseq_seqkd.evaluate import quality
from fairseq_seqkd.evaluate.report import Scores


def score_runs(report, runs, corpus):
    """Fill in the scores of a report's rows, and their gains over others.

    Args:
        report: `Report`, whose rows are those of the runs
        runs: `Run` list, with texts
        corpus: `Corpus`
    """
    report.signatures = quality.signatures(corpus.references)
    groups = quality.group_by_length(corpus.lengths)
    report.length_groups = [bounds for bounds, _ in groups]
    systems = [System([seed.texts for seed in run.seeds], corpus.references) for run in runs]
    for row, system in zip(report.rows, systems):
        row.sentences = len(corpus)
        row.bleu_by_length = [mean(b.score for b in system.bleu(ids)) for _, ids in groups]
    index_of = {id(row): index for index, row in enumerate(report.rows)}
    compared = {index_of[id(row)]: row.name for row in report.compared}
    _score_part(report.rows, systems, slice(None), compared)
    for name, part in corpus.parts.items():
        is_all = len(corpus.parts) == 1
        scores = [Scores.copy_of(row) if is_all else Scores() for row in report.rows]
        if not is_all:
            _score_part(scores, systems, part, compared)
        for row, one in zip(report.rows, scores):
            row.splits[name] = one


class System:
    """The output of a row's seeds, and what BLEU counts in it.

    Args:
        texts: a (sentences,) list for each seed
        references: (sentences,) list
    """

    def __init__(self, texts, references):
        self.texts, self.references = texts, references
        self.stats = [quality.sentence_stats(seed, references) for seed in texts]

    def bleu(self, part):
        """The corpus score of each seed on a part of the sentences, sacreBLEU's."""
        return [quality.corpus_bleu(stats[part]) for stats in self.stats]

    def chrf(self, part):
        """The chrF of each seed on a slice of the sentences."""
        return [quality.corpus_chrf(seed[part], self.references[part]) for seed in self.texts]

    def resampled_bleu(self, part):
        """(resamples,) BLEU of resampled sentences, the mean over the seeds."""
        return np.mean([quality.resampled_bleu(stats[part]) for stats in self.stats], axis=0)


def _score_part(scores, systems, part, compared):
    """Fill in scores on a slice of the sentences.

    Args:
        scores: a `Row` or `Scores` for every system
        systems: `System` list
        part: slice
        compared: {index of a system that all are compared with: its name}, the baseline first
    """
    for one, system in zip(scores, systems):
        bleu = system.bleu(part)
        one.seed_bleu = [seed.score for seed in bleu]
        one.seed_chrf = system.chrf(part)
        one.bleu, one.chrf = mean(one.seed_bleu), mean(one.seed_chrf)
        one.brevity_penalty = mean(seed.bp for seed in bleu)
        one.length_ratio = mean(seed.ratio for seed in bleu)
    resampled = [system.resampled_bleu(part) for system in systems]
    for index, name in compared.items():
        baseline = scores[index].bleu, resampled[index]
        for number, one in enumerate(scores):
            if number != index:
                one.gains[name] = quality.bleu_gain(one.bleu, resampled[number], *baseline)
    baseline_name = next(iter(compared.values()))
    for one in scores:
        one.gain = one.gains.get(baseline_name)
