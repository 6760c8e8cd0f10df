"""The fairseq engine: decodes with fairseq's SequenceGenerator, for any model or ensemble."""

import numpy as np
import torch
from fairseq.data import data_utils

from fairseq_seqkd.models.adapters import DTYPES

# Hypotheses times source tokens of one batch: fastest on CPUs, and fits into a GPU's memory.
_ROWS_TIMES_LENGTH = 20_000
_COMPUTE_TYPES = ("float32", "float16")


class FairseqEngine:
    """Decodes with a `Teacher`, by beam search or sampling; see ``engines.py``.

    Args:
        teacher: `Teacher`
        search: `SearchOptions`
        max_tokens: source tokens of one batch, with padding; None: inversely proportional to
            the beam, so that memory does not depend on it
        keep_unfinished: also yield hypotheses that were cut at the longest length
    """

    name = "fairseq"

    def __init__(self, teacher, search, max_tokens=None, keep_unfinished=False):
        self.teacher = teacher
        self.search = search
        self.max_tokens = max_tokens or max(1, _ROWS_TIMES_LENGTH // search.beam)
        self.keep_unfinished = keep_unfinished

    @classmethod
    def resolve_settings(
        cls, search, device, folder, load_teacher, compute_type="float32", max_tokens=None
    ):
        """Resolve what is asked for into the manifest's entry ``engine``.

        Args:
            search, device, folder, load_teacher: as for `resolve_engine`
            compute_type: the precision, such as float16
            max_tokens: as for the class
        """
        if compute_type not in _COMPUTE_TYPES:
            raise ValueError(
                f"the compute type is {compute_type!r}: the fairseq engine has "
                f"{' and '.join(_COMPUTE_TYPES)} (CTranslate2 has int8 as well)"
            )
        max_tokens = cls(None, search, max_tokens).max_tokens
        return {"name": cls.name, "compute_type": compute_type, "max_tokens": max_tokens}

    @classmethod
    def build(cls, settings, search, device, threads, folder, load_teacher, dictionaries):
        """Build the engine of a manifest's entry; arguments as for `build_engine`."""
        if threads is not None:
            torch.set_num_threads(threads)
        teacher = load_teacher(device, DTYPES[settings["compute_type"]])
        return cls(teacher, search, settings["max_tokens"])

    @property
    def max_source_positions(self):
        """The longest source that it takes, in tokens with EOS."""
        return self.teacher.max_source_positions()

    def source_lengths(self, dataset, ids):
        """(n,) lengths of some sentences in tokens, with EOS."""
        return dataset.src_sizes[ids]

    def __call__(self, dataset, ids):
        """Yield (id, [(tokens, score), ...]) for each of ``ids``.

        Args:
            dataset: a fairseq LanguagePairDataset
            ids: sentence ids, with similar lengths next to each other
        """
        for batch in self.batches(dataset, ids):
            sample = dataset.collater([dataset[int(id_)] for id_ in batch])
            yield from zip(sample["id"].tolist(), self._decode(sample))

    def batches(self, dataset, ids):
        """Divide ``ids`` into batches of at most ``max_tokens`` source tokens with padding."""
        lengths = dataset.src_sizes[ids].astype(np.int64)
        longest = int(lengths.max(initial=1))
        return data_utils.batch_by_size(
            np.asarray(ids, dtype=np.int64),
            num_tokens_fn=lambda index: dataset.src_sizes[index],
            num_tokens_vec=lengths,
            max_tokens=max(self.max_tokens, longest),
            required_batch_size_multiple=1,  # larger ones drop sentences of the last batch
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
                if hypothesis["finished"] or self.keep_unfinished
            ]
