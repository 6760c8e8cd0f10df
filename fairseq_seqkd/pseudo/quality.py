"""BLEU and chrF of a data-bin's new targets against gold."""

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.pseudo.gold import gold_mask_of

# Of larger corpora so many evenly spaced sentences are measured, which takes about a minute.
MAX_SENTENCES = 100_000
_BLOCK = 1000


def quality_against_gold(split, ids, target_of, text):
    """sacreBLEU's corpus BLEU and chrF of new targets.

    Args:
        split: `PairSplit`
        ids: (n,) sentence ids
        target_of: called with a sentence id, returns its (length,) token ids with EOS
        text: arguments of `Detokeniser`, how tokens become text
    Returns:
        the entry ``quality`` of ``target_spec.json``: the scores, the numbers of sentences
        measured and of all that have gold, and whether tokens were detokenised; None if no
        sentence has gold
    """
    ids = np.asarray(ids)[gold_mask_of(split)[ids]]
    if not len(ids):
        return None
    measured = ids
    if len(ids) > MAX_SENTENCES:
        measured = ids[np.linspace(0, len(ids) - 1, MAX_SENTENCES).astype(np.int64)]
    detokenise = Detokeniser(split.dataset.tgt_dict, **text)

    def block(ids):
        hypotheses = [detokenise.text(target_of(id_)) for id_ in ids]
        return hypotheses, [detokenise.reference(split.dataset.tgt[id_]) for id_ in ids]

    begins = range(0, len(measured), _BLOCK)
    return {
        **corpus_scores(block(measured[i : i + _BLOCK].tolist()) for i in begins),
        "sentences": len(measured),
        "with_gold": len(ids),
        "detokenised": any(text.values()),
    }


def corpus_scores(blocks):
    """Corpus BLEU and chrF; memory holds the counts of one block.

    Args:
        blocks: an iterable of (hypotheses, references), two lists of strings
    Returns:
        {"bleu", "chrf"}, from 0 to 100
    """
    metrics = {"bleu": BLEU(force=True), "chrf": CHRF()}  # force: no warning about tokens
    sums = dict.fromkeys(metrics, 0)
    for hypotheses, references in blocks:
        for name, metric in metrics.items():
            stats = metric._extract_corpus_statistics(hypotheses, [references])
            sums[name] = sums[name] + np.sum(stats, axis=0)
    scores = {
        name: metric._aggregate_and_compute([sums[name].tolist()])
        for name, metric in metrics.items()
    }
    return {name: round(score.score, 2) for name, score in scores.items()}


def describe(quality):
    """One line about an entry ``quality``."""
    number, total = quality["sentences"], quality["with_gold"]
    sentences = f"{number} sentences" if number == total else f"{number} of {total} sentences"
    tokens = "" if quality["detokenised"] else "; tokens, not detokenised"
    return (
        f"BLEU {quality['bleu']:.2f}, chrF {quality['chrf']:.2f} against gold "
        f"({sentences}{tokens})"
    )
