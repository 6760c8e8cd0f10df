"""Decodes with non-autoregressive models, which refine a whole target in some iterations."""

from argparse import Namespace

import torch
from fairseq.tasks.translation_lev import TranslationLevenshteinTask

from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.search import SearchOptions

DEFAULT_MAX_ITER = 10  # fairseq-generate's


def is_refining(task):
    """Whether the models of a task refine a whole target (``translation_lev``)."""
    return isinstance(task, TranslationLevenshteinTask)


class RefinementEngine(FairseqEngine):
    """Decodes as fairseq-generate does with the task ``translation_lev``.

    Sources and targets begin with BOS there, which a data-bin and the results here lack.

    Args:
        teacher: `Teacher` with a task as of `is_refining`
        max_iter: iterations after the first pass, as in fairseq's --iter-decode-max-iter; a
            sentence that does not change any more is finished before
    """

    def __init__(self, teacher, max_iter=DEFAULT_MAX_ITER):
        super().__init__(teacher, SearchOptions(beam=1), keep_unfinished=True)
        options = Namespace(iter_decode_max_iter=max_iter)
        self.generator = teacher.task.build_generator(teacher.models, options)

    @property
    def max_source_positions(self):
        """The longest source that it takes, in tokens with EOS and without BOS."""
        return super().max_source_positions - 1

    def __call__(self, dataset, ids):
        """Yield (id, [(tokens, score)]) for each of ``ids``; see `FairseqEngine`."""
        bos = torch.tensor([dataset.src_dict.bos()])
        for batch in self.batches(dataset, ids):
            samples = [dataset[int(id_)] for id_ in batch]
            samples = [{**one, "source": torch.cat([bos, one["source"]])} for one in samples]
            sample = dataset.collater(samples)
            yield from zip(sample["id"].tolist(), self._decode(sample))

    def _decode(self, sample):
        device, dictionary = self.teacher.device, self.teacher.task.target_dictionary
        inputs = {
            key: sample["net_input"][key].to(device) for key in ("src_tokens", "src_lengths")
        }
        task, models = self.teacher.task, self.teacher.models
        for (hypothesis,) in task.inference_step(self.generator, models, {"net_input": inputs}):
            tokens = hypothesis["tokens"]
            # What fairseq-generate does not print, wherever it stands.
            is_word = tokens.ne(dictionary.bos()) & tokens.ne(dictionary.eos())
            tokens = torch.cat([tokens[is_word], tokens.new_tensor([dictionary.eos()])])
            yield [(tokens.cpu().numpy(), float(hypothesis["score"]))]
