"""Which hypothesis of an n-best list becomes the target."""

from sacrebleu.metrics import BLEU


class Best:
    """The teacher's best beam hypothesis (Kim & Rush 2016, section 3.2)."""

    name = "best"
    settings = {}

    def __call__(self, hypotheses, gold):
        """The index of the choice.

        Args:
            hypotheses: [(tokens, score)], best first, at least one
            gold: (length,) token ids
        """
        return 0


class Closest:
    """The hypothesis with the highest smoothed sentence BLEU against gold.

    Measured on text without subwords by sacrebleu's sentence BLEU (exponential
    smoothing, one of Chen & Cherry 2014; effective order). Of equally close ones the
    teacher's favourite is taken (Kim & Rush 2016, section 3.3).

    Args:
        dictionary: the target dictionary
        remove_bpe: how the text was cut into subwords, as in fairseq's --remove-bpe
    """

    name = "closest"

    def __init__(self, dictionary, remove_bpe=None):
        self.dictionary = dictionary
        self.remove_bpe = remove_bpe
        self.bleu = BLEU(smooth_method="exp", effective_order=True)
        self.settings = {"metric": "sentence BLEU", "remove_bpe": remove_bpe}

    def text(self, tokens, **options):
        return self.dictionary.string(tokens.tolist(), self.remove_bpe, **options)

    def __call__(self, hypotheses, gold):
        # An unknown word in both must not count as a match.
        reference = [self.text(gold, escape_unk=True)]
        scores = [
            self.bleu.sentence_score(self.text(tokens), reference).score
            for tokens, _ in hypotheses
        ]
        return scores.index(max(scores))


def build_selector(name, dictionary, remove_bpe=None):
    """The selector called ``name``: ``best`` or ``closest``."""
    return Closest(dictionary, remove_bpe) if name == Closest.name else Best()
