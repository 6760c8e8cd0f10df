"""How far the translating is."""

from fairseq_seqkd.shards import progress_bar


class TranslationProgress:
    """Sentences and tokens a second, and an estimate of the time left.

    Args:
        sentences: how many there are to translate
        disable: whether to show nothing
    """

    def __init__(self, sentences, disable=False):
        self.bar = progress_bar(total=sentences, unit=" sentences", disable=disable)
        self.tokens = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._tell_rate()
        self.bar.close()

    def add(self, sentence):
        """Count an :class:`~fairseq_seqkd.pseudo.store.NBest`, by its best hypothesis."""
        if sentence.hypotheses:
            self.tokens += len(sentence.hypotheses[0][0])
        if self.bar.update(1):
            self._tell_rate()

    def _tell_rate(self):
        rate = self.tokens / max(self.bar.format_dict["elapsed"], 1e-3)
        self.bar.set_postfix_str(f"{rate:.0f} tokens/s")
