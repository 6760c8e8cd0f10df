"""Decoding with fairseq's own SequenceGenerator: any model, any ensemble."""

import numpy as np
from fairseq.data import data_utils


class FairseqBackend:
    """Beam search with a :class:`~fairseq_seqkd.teacher.Teacher`.

    Args:
        teacher: the model
        search: :class:`~fairseq_seqkd.teacher.SearchOptions`
        max_tokens: hypothesis rows times source length of one batch, so that memory
            does not depend on the beam
    """

    name = "fairseq"
    MAX_TOKENS = 20000

    def __init__(self, teacher, search, max_tokens=MAX_TOKENS):
        self.teacher = teacher
        self.search = search
        self.max_tokens = max_tokens

    @property
    def max_source_positions(self):
        """The longest source, in tokens with EOS, that can be translated."""
        return self.teacher.max_source_positions()

    def __call__(self, dataset, ids):
        """Yield (id, [(tokens, score), ...]) for each of ``ids``.

        Args:
            dataset: a fairseq LanguagePairDataset
            ids: sentence ids, similar lengths beside each other
        """
        for batch in self.batches(dataset, ids):
            sample = dataset.collater([dataset[int(i)] for i in batch])
            yield from zip(sample["id"].tolist(), self._decode(sample["net_input"]))

    def batches(self, dataset, ids):
        """``ids`` cut into batches of at most max_tokens / beam padded source tokens."""
        lengths = dataset.src_sizes[ids].astype(np.int64)
        one_sentence = int(lengths.max(initial=1))
        # A multiple above 1 would make fairseq drop sentences of the last batch.
        return data_utils.batch_by_size(
            np.asarray(ids, dtype=np.int64),
            num_tokens_fn=dataset.num_tokens,
            num_tokens_vec=lengths,
            max_tokens=max(self.max_tokens // self.search.beam, one_sentence),
            required_batch_size_multiple=1,
        )

    def _decode(self, net_input):
        device = self.teacher.device
        inputs = {key: net_input[key].to(device) for key in ("src_tokens", "src_lengths")}
        for hypotheses in self.teacher.generate(inputs, self.search):
            yield [
                (hypothesis["tokens"].cpu().numpy(), float(hypothesis["score"]))
                for hypothesis in hypotheses
            ]
