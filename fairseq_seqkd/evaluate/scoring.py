"""Fills the scores of all rows in: on all sentences, on each split, and by source length."""

from fairseq_seqkd.evaluate import quality
from fairseq_seqkd.evaluate.report import Scores


def score_runs(report, runs, corpus):
    """Fill in the scores of a report's rows, and their gains over the baseline.

    Args:
        report: `Report`, whose rows are those of the runs
        runs: `Run` list, with texts
        corpus: `Corpus`
    """
    groups = quality.group_by_length(corpus.lengths)
    report.length_groups = [bounds for bounds, _ in groups]
    report.signatures = quality.signatures(corpus.references)
    stats = [quality.sentence_stats(run.texts, corpus.references) for run in runs]
    for run, rows in zip(runs, stats):
        run.row.sentences = len(run.texts)
        run.row.bleu_by_length = [quality.corpus_bleu(rows[ids]).score for _, ids in groups]
    baseline = [run.row is report.baseline for run in runs].index(True)
    scorer = _PartScorer(runs, stats, corpus.references, baseline)
    scorer.fill_in([run.row for run in runs], slice(None))
    for name, part in corpus.parts.items():
        for run in runs:
            run.row.splits[name] = Scores()
        scorer.fill_in([run.row.splits[name] for run in runs], part)


class _PartScorer:
    """Scores all runs on a part of the sentences.

    Args:
        runs: `Run` list
        stats: `sentence_stats` of each
        references: (sentences,) text
        baseline: index of the run that the others are compared with
    """

    def __init__(self, runs, stats, references, baseline):
        self.runs, self.stats, self.references = runs, stats, references
        self.baseline = baseline

    def fill_in(self, scores, part):
        """Fill in the scores of all runs.

        Args:
            scores: a `Row` or `Scores` for every run
            part: slice of the sentences
        """
        resampled = [quality.resampled_bleu(stats[part]) for stats in self.stats]
        for one, run, stats in zip(scores, self.runs, self.stats):
            bleu = quality.corpus_bleu(stats[part])
            one.bleu, one.brevity_penalty, one.length_ratio = bleu.score, bleu.bp, bleu.ratio
            one.chrf = quality.corpus_chrf(run.texts[part], self.references[part])
        baseline = scores[self.baseline].bleu, resampled[self.baseline]
        for one, resamples in zip(scores, resampled):
            if one is not scores[self.baseline]:
                one.gain = quality.bleu_gain(one.bleu, resamples, *baseline)
