"""Decoding with fairseq's own SequenceGenerator: any model, any ensemble."""

import numpy as np
import torch
from fairseq.data import data_utils

from fairseq_seqkd.models.adapters import DTYPES

# Hypothesis rows times source length that one batch decodes fastest with on CPUs, and that
# GPUs have room for.
_ROWS_TIMES_LENGTH = 20_000
_COMPUTE_TYPES = ("float32", "float16")


class FairseqEngine:
    """Beam search, or sampling, with a `Teacher`.

    Args:
        teacher: the model
        search: `SearchOptions`
        max_tokens: source tokens of one batch, padding included; None so many that memory
            does not depend on the beam
        unfinished: whether to yield hypotheses that were cut at the longest length
    """

    name = "fairseq"

    def __init__(self, teacher, search, max_tokens=None, unfinished=False):
        self.unfinished = unfinished
        self.teacher = teacher
        self.search = search
        self.max_tokens = max_tokens or max(1, _ROWS_TIMES_LENGTH // search.beam)

    @classmethod
    def settings(
        cls, search, device, folder, load_teacher, compute_type="float32", max_tokens=None
    ):
        """What the manifest says; see `resolve_engine`."""
        if compute_type not in _COMPUTE_TYPES:
            raise ValueError(
                f"--compute-type is {compute_type!r}: the fairseq engine has "
                f"{' and '.join(_COMPUTE_TYPES)} (CTranslate2 has int8 as well)"
            )
        max_tokens = cls(None, search, max_tokens).max_tokens
        return {"name": cls.name, "compute_type": compute_type, "max_tokens": max_tokens}

    @classmethod
    def build(cls, settings, search, device, threads, folder, load_teacher, dictionaries):
        if threads is not None:
            torch.set_num_threads(threads)
        teacher = load_teacher(device, DTYPES[settings["compute_type"]])
        return cls(teacher, search, settings["max_tokens"])

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
            yield from zip(sample["id"].tolist(), self._decode(sample))

    def batches(self, dataset, ids):
        """``ids`` cut into batches of at most max_tokens padded source tokens."""
        lengths = dataset.src_sizes[ids].astype(np.int64)
        one_sentence = int(lengths.max(initial=1))
        # A multiple above 1 would make fairseq drop sentences of the last batch.
        return data_utils.batch_by_size(
            np.asarray(ids, dtype=np.int64),
            num_tokens_fn=lambda index: dataset.src_sizes[index],
            num_tokens_vec=lengths,
            max_tokens=max(self.max_tokens, one_sentence),
            required_batch_size_multiple=1,
        )

    def _decode(self, sample):
        device = self.teacher.device
        inputs = {
            key: sample["net_input"][key].to(device) for key in ("src_tokens", "src_lengths")
        }
        for hypotheses in self.teacher.generate(inputs, self.search, sample["id"]):
            yield [
                (hypothesis["tokens"].cpu().numpy(), float(hypothesis["score"]))
                for hypothesis in hypotheses
                if hypothesis["finished"] or self.unfinished
            ]
