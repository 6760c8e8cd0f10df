"""The CTranslate2 engine: several times faster, for Transformers that it can convert."""

import copy
import os

import numpy as np
import torch

from fairseq_seqkd.models.ctranslate2 import (
    EngineUnavailable,
    convert_teacher,
    ctranslate2_library,
    limits_of,
)
from fairseq_seqkd.models.dictionaries import unique_symbols

# Source tokens of a batch. Small batches stay in a CPU's caches; GPUs need large ones.
_MAX_TOKENS = {"cpu": 512, "cuda": 4096}
_COMPUTE_TYPES = ("float32", "float16", "int8")


class CTranslate2Engine:
    """Decodes by beam search with CTranslate2, several batches at once; see ``engines.py``.

    Args:
        folder: the converted model, as `convert_teacher` writes it
        search: `SearchOptions`, without sampling
        settings: see `resolve_settings`
        device: torch.device
        threads: batches that are translated at the same time, with one thread each
        dictionaries: source and target dictionary
        keep_unfinished: also yield hypotheses that were cut at the longest length

    With a vocabulary map in the model's folder, it is used.
    """

    name = "ctranslate2"

    def __init__(
        self, folder, search, settings, device, threads, dictionaries, keep_unfinished=False
    ):
        limits = limits_of(folder)
        self.max_source_positions = limits["max_source_positions"]
        self.max_target_positions = limits["max_target_positions"]
        self.search = search
        self.max_tokens = settings["max_tokens"]
        self.keep_unfinished = keep_unfinished
        self.source, self.target = dictionaries
        # The converter renames the padding symbol.
        self.symbols = [
            "<blank>" if index == self.source.pad() else symbol
            for index, symbol in enumerate(unique_symbols(self.source))
        ]
        names = unique_symbols(self.target)
        self.target_ids = {name: index for index, name in enumerate(names)}
        model, compute_type = os.path.join(folder, "model"), settings["compute_type"]
        self.use_vmap = os.path.exists(os.path.join(model, "vmap.txt"))
        self.translator = load_translator(model, compute_type, device, threads)

    @classmethod
    def resolve_settings(
        cls,
        search,
        device,
        folder,
        load_teacher,
        compute_type="float32",
        max_tokens=None,
        quantization=None,
    ):
        """Convert the teacher, and return the manifest's entry ``engine``.

        Args:
            search, device, folder, load_teacher: as for `resolve_engine`
            compute_type: the precision, such as int8
            max_tokens: source tokens of one batch
            quantization: as for `convert_model`
        Raises:
            EngineUnavailable: CTranslate2 cannot be used; says why
        """
        device = torch.device(device)
        check_available(search, device, compute_type)
        if not os.path.exists(folder):
            convert_teacher(load_teacher("cpu", torch.float32), folder, quantization)
        return {
            "name": cls.name,
            "version": ctranslate2_library().__version__,
            "compute_type": compute_type,
            "max_tokens": max_tokens or default_max_tokens(device),
        }

    @classmethod
    def build(cls, settings, search, device, threads, folder, load_teacher, dictionaries):
        """Build the engine of a manifest's entry; arguments as for `build_engine`.

        Raises:
            ValueError: as `check_settings`
        """
        check_settings(settings, device, os.path.dirname(folder))
        if not os.path.exists(folder):
            convert_teacher(load_teacher("cpu", torch.float32), folder)
        threads = threads or torch.get_num_threads()
        return cls(folder, search, settings, device, threads, dictionaries)

    def without_shortlist(self):
        """The same engine without its vocabulary map."""
        other = copy.copy(self)
        other.use_vmap = False
        return other

    def with_search(self, search, keep_unfinished=None):
        """The same engine with other `SearchOptions`, and another ``keep_unfinished``."""
        other = copy.copy(self)
        other.search = search
        if keep_unfinished is not None:
            other.keep_unfinished = keep_unfinished
        return other

    def source_lengths(self, dataset, ids):
        """(n,) lengths of some sentences in tokens, with EOS."""
        return dataset.src_sizes[ids]

    def __call__(self, dataset, ids):
        """Start to translate at once; returns an iterator over (id, [(tokens, score), ...]).

        Args:
            dataset: a fairseq LanguagePairDataset
            ids: sentence ids
        """
        sources = [
            [self.symbols[token] for token in dataset.src[int(id_)].tolist()[:-1]]
            for id_ in ids
        ]
        limit = self.max_target_positions
        results = begin_batch(self, sources, limit, use_vmap=self.use_vmap)
        return zip(map(int, ids), map(self._hypotheses, results))

    def _hypotheses(self, pending):
        result = pending.result()
        eos, unk = self.target.eos_word, self.target.unk()
        hypotheses = []
        for tokens, score in zip(result.hypotheses, result.scores):
            finished = tokens[-1:] == [eos]
            if self.keep_unfinished and not finished:
                tokens = [*tokens, eos]
            if self.keep_unfinished or finished:
                ids = np.array([self.target_ids.get(token, unk) for token in tokens], np.int32)
                hypotheses.append((ids, score))
        return hypotheses


def begin_batch(engine, sources, most_positions, **options):
    """Start to translate; returns CTranslate2's pending results.

    Args:
        engine: has a ``translator``, its ``search`` and ``max_tokens``
        sources: lists of tokens, without EOS
        most_positions: of a target
        options: further arguments of CTranslate2's ``translate_batch``
    """
    search, longest = engine.search, max(map(len, sources), default=0) + 1
    return engine.translator.translate_batch(
        sources,
        max_batch_size=engine.max_tokens,
        batch_type="tokens",
        asynchronous=True,
        beam_size=search.beam,
        num_hypotheses=search.nbest,
        length_penalty=search.lenpen,
        max_input_length=0,
        max_decoding_length=search.longest(longest, most_positions),
        return_scores=True,
        return_end_token=True,
        **options,
    )


def check_settings(settings, device, root):
    """Refuse to go on with a store that this version or this processor would make otherwise.

    Args:
        settings: the manifest's entry ``engine``
        device: torch.device
        root: the store's folder
    Raises:
        ValueError: names both versions, or the compute types that there are
    """
    version = ctranslate2_library().__version__
    if version != settings["version"]:
        raise ValueError(
            f"the store was begun with CTranslate2 {settings['version']}, found {version}: "
            f"pip install ctranslate2=={settings['version']}, or delete the folder {root!r} to "
            "start again"
        )
    supported, compute_type = compute_types_of(device), settings["compute_type"]
    if compute_type not in supported:
        raise ValueError(
            f"the store was begun with the compute type {compute_type}, and this device has "
            f"{', '.join(supported)}: go on with it on a machine of the first kind, or make it "
            f"anew (--overwrite --compute-type {supported[0]})"
        )


def default_max_tokens(device):
    """Source tokens of a batch on a torch.device."""
    return _MAX_TOKENS[device.type]


def check_available(search, device, compute_type):
    """Raise EngineUnavailable if CTranslate2 cannot be used for this search and device."""
    library = ctranslate2_library()
    if search.sampling:
        raise EngineUnavailable("sampling needs the fairseq engine, which seeds each sentence")
    if device.type == "cuda" and not library.get_cuda_device_count():
        raise EngineUnavailable("this build of CTranslate2 sees no GPU")
    supported = compute_types_of(device)
    if compute_type not in supported:
        raise EngineUnavailable(
            f"the compute type is {compute_type!r}, expected one of "
            f"{', '.join(supported)} on this device"
        )


def compute_types_of(device):
    """The names of the compute types that a torch.device has, of those that are used here."""
    supported = ctranslate2_library().get_supported_compute_types(device.type)
    return [name for name in _COMPUTE_TYPES if name in supported]


def load_translator(folder, compute_type, device, threads):
    """Load a converted model as ctranslate2.Translator.

    Args:
        folder: of the model
        compute_type, device, threads: as for `CTranslate2Engine`
    Raises:
        ValueError: it cannot be loaded
    """
    on_cpu = device.type == "cpu"
    try:
        return ctranslate2_library().Translator(
            folder,
            device=device.type,
            device_index=device.index or 0,
            compute_type=compute_type,
            inter_threads=threads if on_cpu else 1,
            intra_threads=1 if on_cpu else 0,
            max_queued_batches=-1,  # a whole chunk is queued at once
        )
    except RuntimeError as error:
        raise ValueError(
            f"CTranslate2 cannot load {folder!r}: {error}. Delete that folder and convert the "
            "model again; generate does so by itself with a model of its store."
        ) from error
