"""Decoding with CTranslate2: several times faster, for the Transformers that it can convert."""

import contextlib
import copy
import os
import tempfile
from argparse import Namespace

import numpy as np
import torch

from fairseq_seqkd.checkpoints import (
    checkpoint_paths,
    config_of,
    load_state,
    plain_containers,
)
from fairseq_seqkd.shards import atomic_directory, read_json, write_json

# Source tokens of a batch. Small ones stay in a CPU's caches; GPUs want large ones.
_MAX_TOKENS = {"cpu": 512, "cuda": 4096}
_COMPUTE_TYPES = ("float32", "float16", "int8")


class CannotConvert(ValueError):
    """CTranslate2 cannot be had for this teacher, this search, or on this machine."""


class CTranslate2Backend:
    """Beam search by CTranslate2, several batches at once.

    Args:
        folder: the converted model, as :meth:`convert` writes it
        search: :class:`~fairseq_seqkd.search.SearchOptions`, without sampling
        settings: see :meth:`settings`
        device: torch.device
        threads: batches that are translated at the same time, one thread each
        dictionaries: of source and target
        unfinished: whether to yield hypotheses that were cut at the longest length
    """

    name = "ctranslate2"

    def __init__(
        self, folder, search, settings, device, threads, dictionaries, unfinished=False
    ):
        self.unfinished = unfinished
        limits = read_json(os.path.join(folder, "limits.json"))
        self.max_source_positions = limits["max_source_positions"]
        self.max_target_positions = limits["max_target_positions"]
        self.search = search
        self.max_tokens = settings["max_tokens"]
        self.source, self.target = dictionaries
        # The converter's one change of name.
        self.symbols = [
            "<blank>" if index == self.source.pad() else symbol
            for index, symbol in enumerate(self.source.symbols)
        ]
        on_cpu = device.type == "cpu"
        try:
            self.translator = _library().Translator(
                os.path.join(folder, "model"),
                device=device.type,
                device_index=device.index or 0,
                compute_type=settings["compute_type"],
                inter_threads=threads if on_cpu else 1,
                intra_threads=1 if on_cpu else 0,
                max_queued_batches=-1,  # a whole chunk is handed over at once
            )
        except RuntimeError as error:
            raise ValueError(
                f"CTranslate2 cannot load {folder!r}: {error}. Delete that folder, and the "
                "teacher is converted again."
            ) from error

    @classmethod
    def settings(
        cls,
        search,
        device,
        folder,
        load_teacher,
        compute_type="float32",
        max_tokens=None,
        quantization=None,
    ):
        """What the manifest says; converts the teacher, to know that it can be.

        Args and errors as for :func:`~fairseq_seqkd.pseudo.backends.choose_backend`, and
        ``quantization`` as for :func:`convert`.
        """
        library = _library()
        device = torch.device(device)
        if search.sampling:
            raise CannotConvert("sampling is seeded a sentence by the fairseq backend alone")
        if device.type == "cuda" and not library.get_cuda_device_count():
            raise CannotConvert("this build of CTranslate2 sees no GPU (--cpu: without one)")
        known = library.get_supported_compute_types(device.type)
        if compute_type not in _COMPUTE_TYPES or compute_type not in known:
            raise CannotConvert(
                f"--compute-type is {compute_type!r}, expected one of "
                f"{', '.join(sorted(set(_COMPUTE_TYPES) & set(known)))} on this device"
            )
        if not os.path.exists(folder):
            cls.convert(folder, load_teacher("cpu", torch.float32), quantization)
        return {
            "name": cls.name,
            "version": library.__version__,
            "compute_type": compute_type,
            "max_tokens": max_tokens or _MAX_TOKENS[device.type],
        }

    @classmethod
    def build(cls, settings, search, device, threads, folder, load_teacher, dictionaries):
        version = _library().__version__
        if version != settings["version"]:
            raise ValueError(
                f"the store was begun with CTranslate2 {settings['version']}, found {version}: "
                f"pip install ctranslate2=={settings['version']}, or --overwrite to start anew"
            )
        if not os.path.exists(folder):
            cls.convert(folder, load_teacher("cpu", torch.float32))
        threads = threads or torch.get_num_threads()
        return cls(folder, search, settings, device, threads, dictionaries)

    @classmethod
    def convert(cls, folder, teacher, quantization=None):
        """Convert a teacher, by the converter that comes with CTranslate2.

        Args:
            folder: where to; ``model/`` is CTranslate2's and ``limits.json`` ours
            teacher: :class:`~fairseq_seqkd.teacher.Teacher`, with its ``path``
            quantization: as for :func:`convert`
        Raises:
            CannotConvert: says why
        """
        paths = checkpoint_paths(teacher.path)
        if len(paths) > 1:
            raise CannotConvert(f"the teacher is an ensemble of {len(paths)} models")
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        # Another process may have converted it in the meantime.
        with contextlib.suppress(FileExistsError), atomic_directory(folder) as new:
            state, model = load_state(paths[0]), os.path.join(new, "model")
            config = plain_containers(config_of(state, paths[0]))
            convert(state["model"], config, teacher.task, model, quantization)
            limits = {
                "max_source_positions": teacher.max_source_positions(),
                "max_target_positions": teacher.max_target_positions(),
            }
            write_json(os.path.join(new, "limits.json"), limits)

    def searching(self, search):
        """The same, searching otherwise."""
        other = copy.copy(self)
        other.search = search
        return other

    def __call__(self, dataset, ids):
        """Hand ``ids`` over now; the result yields (id, [(tokens, score), ...]) for each.

        Args:
            dataset: a fairseq LanguagePairDataset
            ids: sentence ids
        """
        sources = [
            [self.symbols[token] for token in dataset.src[int(id_)].tolist()[:-1]]
            for id_ in ids
        ]
        longest = max((len(source) for source in sources), default=0) + 1
        found = self.translator.translate_batch(
            sources,
            max_batch_size=self.max_tokens,
            batch_type="tokens",
            asynchronous=True,
            beam_size=self.search.beam,
            num_hypotheses=self.search.nbest,
            length_penalty=self.search.lenpen,
            max_input_length=0,
            max_decoding_length=self.search.longest(longest, self.max_target_positions),
            return_scores=True,
            return_end_token=True,
        )
        return zip(map(int, ids), map(self._hypotheses, found))

    def _hypotheses(self, pending):
        """Those of a sentence that are finished, which end in EOS; or all."""
        result = pending.result()
        eos = self.target.eos_word
        hypotheses = []
        for tokens, score in zip(result.hypotheses, result.scores):
            if self.unfinished and tokens[-1:] != [eos]:
                tokens = [*tokens, eos]
            if tokens[-1:] == [eos]:
                ids = np.array([self.target.index(token) for token in tokens], dtype=np.int32)
                hypotheses.append((ids, score))
        return hypotheses


def _library():
    try:
        import ctranslate2
    except ImportError as error:
        raise CannotConvert("it is not installed: pip install ctranslate2") from error
    return ctranslate2


def convert(model, config, task, folder, quantization=None):
    """Let CTranslate2's own converter convert a model.

    Args:
        model: {name: tensor}
        config: fairseq's configuration, as plain containers
        task: its task, with its dictionaries
        folder: a new one, to write to
        quantization: how the weights are kept; None as in the checkpoint
    Raises:
        CannotConvert: says why
    """
    _library()
    from ctranslate2.converters import FairseqConverter

    try:
        languages = task.cfg.source_lang, task.cfg.target_lang
        with tempfile.TemporaryDirectory() as temporary:
            for lang, one in zip(languages, (task.source_dictionary, task.target_dictionary)):
                one.save(os.path.join(temporary, f"dict.{lang}.txt"))
            path = os.path.join(temporary, "model.pt")
            torch.save({"args": _namespace(config), "model": model}, path)
            converter = FairseqConverter(path, temporary, *languages)
            converter.convert(folder, quantization=quantization)
    except OSError:
        raise
    except Exception as error:  # what a converter raises is no fixed set
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CannotConvert(f"it cannot convert the model: {reason}") from error


def _namespace(config):
    """What the converter reads: everything of task and model in one."""
    settings = {**config["task"], "task": config["task"]["_name"], **config["model"]}
    settings.setdefault("arch", config["model"].get("_name"))
    return Namespace(**settings)
