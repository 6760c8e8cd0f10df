"""The sentences on which two rows differ most, for a reader to look at."""

from sacrebleu.metrics import CHRF

from fairseq_seqkd.evaluate.report import Comparison, Difference

SENTENCES = 20


def compare_sentences(report, runs, corpus, names=()):
    """Fill in the sentences on which two rows differ most.

    They differ by sentence chrF; of rows with several seeds the first is shown.

    Args:
        report: `Report`, whose rows are those of the runs, with scores
        runs: `Run` list, with texts
        corpus: `Corpus`
        names: of the two rows; empty: the baseline, and the best row of another model
    """
    rows = list(map(report.row, names)) or default_rows(report)
    if len(rows) < 2:
        return
    texts = [run.seeds[0].texts for row in rows for run in runs if run.row is row]
    scores = [_sentence_chrf(one, corpus.references) for one in texts]
    differences = [abs(one - other) for one, other in zip(*scores)]
    most = sorted(range(len(corpus)), key=lambda id_: -differences[id_])[:SENTENCES]
    report.side_by_side = Comparison(
        [row.name for row in rows],
        [
            Difference(
                corpus.locate(id_),
                corpus.sources[id_],
                corpus.references[id_],
                [one[id_] for one in texts],
                [one[id_] for one in scores],
            )
            for id_ in most
            if differences[id_] > 0
        ],
    )


def _sentence_chrf(texts, references):
    metric = CHRF()
    return [metric.sentence_score(text, [gold]).score for text, gold in zip(texts, references)]


def default_rows(report):
    """The baseline, and the best other row: of another model that decodes alike, if any."""
    baseline = report.baseline
    others = [row for row in report.rows if row.name != baseline.name]
    return [baseline] + sorted(
        others,
        key=lambda row: (row.model == baseline.model, row.beam != baseline.beam, -row.bleu),
    )[:1]
