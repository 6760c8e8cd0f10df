"""Finds the length penalty with which a model has the best BLEU on a validation set."""

import numpy as np

from fairseq_seqkd.evaluate.corpus import load_references
from fairseq_seqkd.evaluate.quality import corpus_bleu, sentence_stats
from fairseq_seqkd.evaluate.speed import timing_chunks
from fairseq_seqkd.io.progress import WorkProgress

GRID = tuple(round(0.6 + 0.2 * step, 1) for step in range(10))  # 0.6 to 2.4


def fastest(loaded_models):
    """The fastest of some engines: on a GPU, with CTranslate2; of equals the first.

    Args:
        loaded_models: {(torch.device, engine name): `LoadedModel`}
    Returns:
        its device and name
    """
    return min(loaded_models, key=lambda key: (key[0].type != "cuda", key[1] == "fairseq"))


class LengthPenaltyTuner:
    """Tunes the length penalty of models on a split.

    Args:
        settings: `Settings` that name the split
        first: the first `Candidate`: its gold targets are the references for all
    """

    def __init__(self, settings, first):
        self.settings = settings
        split = first.load_split(settings.tune_lenpen)
        self.references = load_references(split, first.detokenise)

    def __call__(self, candidate, loaded_models):
        """A model's BLEU on the split with every length penalty.

        Args:
            candidate: `Candidate`
            loaded_models: as for `fastest`
        Returns:
            {beam above 1: {length penalty: BLEU}}, the penalties in ascending order
        Raises:
            ValueError: the candidate's split has another number of lines, or none
        """
        split = candidate.load_split(self.settings.tune_lenpen)
        if len(split) != len(self.references):
            raise ValueError(
                f"--tune-lenpen: {split.folder!r} has {len(split)} lines in {split.name!r}, "
                f"expected {len(self.references)} as the first model's data-bin"
            )
        device, engine = fastest(loaded_models)
        decode = loaded_models[device, engine].decode
        chunks = timing_chunks(split.dataset.src_sizes, device)
        beams = [beam for beam in self.settings.beams if beam > 1]
        with self._progress(candidate, split, len(beams)) as progress:

            def bleu(beam, lenpen):
                search, outputs = self.settings.search(beam, lenpen), {}
                for ids in chunks:
                    outputs.update(decode(split.dataset, ids, search))
                    progress.add(split.dataset.src_sizes[ids].sum(dtype=np.int64), len(ids))
                return self._bleu(candidate, outputs)

            return {beam: {lenpen: bleu(beam, lenpen) for lenpen in GRID} for beam in beams}

    def _progress(self, candidate, split, n_beams):
        times = n_beams * len(GRID)
        tokens = int(split.dataset.src_sizes.sum(dtype=np.int64)) * times
        label = f"length penalty of {candidate.name}"
        return WorkProgress(tokens, len(split) * times, desc=label)

    def _bleu(self, candidate, outputs):
        texts = [candidate.detokenise.text(outputs[i][0]) for i in range(len(outputs))]
        return corpus_bleu(sentence_stats(texts, self.references)).score


def best_length_penalty(bleu):
    """The penalty with the best BLEU; of equals the smallest.

    Args:
        bleu: {length penalty: BLEU}
    """
    return max(sorted(bleu), key=bleu.get)
