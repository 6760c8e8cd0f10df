"""The engine of an external teacher, which reads and generates text in subwords of its own."""

import torch

from fairseq_seqkd.decoding.ctranslate2_engine import (
    begin_batch,
    check_available,
    check_settings,
    default_max_tokens,
    load_translator,
)
from fairseq_seqkd.models.ctranslate2 import ctranslate2_library

_SENTENCES_TO_CHECK = 1000
_SENTENCES_TO_TRY = 32


class ExternalEngine:
    """Translates lines of text by an `ExternalModel`; see ``engines.py``.

    Scores are the model's, normalised by its own tokens. Hypotheses that are the same in the
    student's subwords are kept once, with the best score.

    Args:
        model: `ExternalModel`
        search: `SearchOptions`, without sampling
        settings: the manifest's entry ``engine``
        device: torch.device
        threads: batches that are translated at the same time, with one thread each
        lines: the source text of every sentence id
        encode: a function from text to the student's token ids, with EOS
    """

    name = "ctranslate2-text"

    def __init__(self, model, search, settings, device, threads, lines, encode):
        self.model, self.search, self.lines, self.encode = model, search, lines, encode
        self.max_source_positions = settings["max_positions"]
        self.max_tokens = settings["max_tokens"]
        self.source, self.target = model.load_subwords()
        self.translator = load_translator(
            model.folder,
            settings["compute_type"],
            device,
            threads or torch.get_num_threads(),
        )

    @classmethod
    def resolve_settings(cls, model, search, device, requested):
        """The manifest's entry ``engine``.

        Args:
            model, search, device: as for `ExternalEngine`
            requested: {"compute_type", "max_tokens", "max_positions"}; None takes the default
        Raises:
            EngineUnavailable: CTranslate2 cannot be used; says why
        """
        compute_type = requested["compute_type"] or "float32"
        check_available(search, device, compute_type)
        model.check_source_end()
        return {
            "name": cls.name,
            "version": ctranslate2_library().__version__,
            "compute_type": compute_type,
            "max_tokens": requested["max_tokens"] or default_max_tokens(device),
            "max_positions": requested["max_positions"] or model.max_positions,
            **model.settings(),
        }

    @classmethod
    def build(cls, model, search, settings, device, threads, lines, encode, root):
        """Build the engine of a store; ``root`` is its folder.

        Raises:
            ValueError: as `check_settings`
        """
        check_settings(settings, device, root)
        return cls(model, search, settings, device, threads, lines, encode)

    def source_lengths(self, dataset, ids):
        """(n,) lengths of some sources in the model's tokens, with EOS; 1 of an empty one."""
        pieces = [self._pieces(id_) for id_ in ids]
        beside = len(self.model.source_prefix) + len(self.model.source_suffix)
        return torch.tensor([len(one) + beside * bool(one) + 1 for one in pieces]).numpy()

    def _pieces(self, id_):
        return self.source.encode(self.lines[id_], out_type=str)

    def __call__(self, dataset, ids):
        """Start to translate at once; returns an iterator over (id, [(tokens, score), ...]).

        Args:
            dataset: not used
            ids: sentence ids
        """
        before, after = self.model.source_prefix, self.model.source_suffix
        sources = [[*before, *self._pieces(id_), *after] for id_ in ids]
        prefix = list(self.model.target_prefix)
        prefixes = [prefix] * len(sources) if prefix else None
        results = begin_batch(self, sources, self.max_source_positions, target_prefix=prefixes)
        return zip(map(int, ids), map(self._hypotheses, results))

    def _hypotheses(self, pending):
        result, eos = pending.result(), self.model.eos
        begin = len(self.model.target_prefix)
        hypotheses = {}
        for pieces, score in zip(result.hypotheses, result.scores):
            if pieces[-1:] == [eos]:  # others were cut at the longest length
                tokens = self.encode(self.target.decode(pieces[begin:-1]))
                hypotheses.setdefault(tokens.tobytes(), (tokens, score))
        return list(hypotheses.values())

    def try_some(self, ids):
        """Translate a few sentences.

        Args:
            ids: sentence ids, of which the first are translated
        """
        ids = list(ids[:_SENTENCES_TO_CHECK])
        lengths = self.source_lengths(None, ids)
        fitting = [i for i, n in zip(ids, lengths) if 1 < n <= self.max_source_positions]
        list(self(None, fitting[:_SENTENCES_TO_TRY]))

    def check_sources(self, ids, accept_unknown):
        """Refuse text of which the model does not know enough subwords.

        Args:
            ids: sentence ids, of which the first thousand are looked at
            accept_unknown: the largest fraction that is accepted
        Raises:
            ValueError: names the fraction and an example
        """
        vocabulary = self.model.vocabulary("source")
        pieces = [one for id_ in ids[:_SENTENCES_TO_CHECK] for one in self._pieces(id_)]
        unknown = [piece for piece in pieces if piece not in vocabulary]
        if len(unknown) > accept_unknown * len(pieces):
            fraction = len(unknown) / len(pieces)
            raise ValueError(
                f"--teacher-spm {self.model.source_spm}: {100 * fraction:.1f} % of the text's "
                f"subwords, such as {unknown[0]!r}, are not in the source vocabulary of "
                f"{self.model.folder!r}; expected at most {100 * accept_unknown:g} %. Give the "
                "sentencepiece model that came with the teacher, and text of its language; "
                f"--accept-unknown {fraction + 0.005:.2f} takes it."
            )
