"""The settings with which a teacher makes a store, and its engine."""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional

import torch

from fairseq_seqkd.decoding.ctranslate2_engine import CTranslate2Engine
from fairseq_seqkd.decoding.engines import ENGINES, build_engine, resolve_engine
from fairseq_seqkd.decoding.self_test import with_fastest
from fairseq_seqkd.models.checkpoints import sha256_of_checkpoints
from fairseq_seqkd.teacher import Teacher


@dataclass
class Recipe:
    """The settings with which a store is made.

    None means the setting of an existing store, or the default for a new one.

    Attributes:
        teacher_path: checkpoints; None if the store must exist already
        load_teacher: called with a device and a dtype if the model itself is needed
        search: values of `SearchOptions` by name
        engine: "name", "compute_type" and "max_tokens", see `resolve_engine`
        engine_flag: the flag that names the engine, for messages
        seed: of the samples of a new store, unless ``search`` has one
        half: whether a new store is made in half precision, unless ``engine`` says otherwise
        device: the device to translate on
        threads: the number of threads to use; None keeps torch's
        check: whether a converted teacher's translations are compared with fairseq's
        load_sources: called for {data-bin: the source that the teacher reads of it}, where it
            is not the student's; None: the teacher reads the student's
    """

    teacher_path: Optional[str] = None
    load_teacher: Optional[Callable[..., Teacher]] = None
    search: Dict[str, Any] = field(default_factory=dict)
    engine: Dict[str, Any] = field(default_factory=dict)
    engine_flag: str = "--engine"
    seed: int = 1
    half: bool = False
    device: Any = "cpu"
    threads: Optional[int] = None
    check: bool = True
    load_sources: Optional[Callable[[], Dict[str, Any]]] = None

    def describe_source(self, split):
        """The manifest's entry ``teacher_source``; None: the teacher reads the student's."""
        return self.load_sources and self.load_sources()[split.folder].describe(split.name)

    def sources(self, split):
        """The LanguagePairDataset whose sources the teacher translates.

        Raises:
            FileNotFoundError, ValueError: it is another data-bin, and does not fit
        """
        if self.load_sources is None:
            return split.dataset
        return self.load_sources()[split.folder].sources(split.name, len(split))

    @property
    def has_teacher(self):
        """Whether there is a teacher that can translate."""
        return self.teacher_path is not None

    def fits(self, manifest):
        """Whether this kind of teacher can go on with a store of this manifest."""
        return self.has_teacher and manifest["engine"]["name"] in ENGINES

    def teacher_sha256(self):
        """The SHA-256 of each of the teacher's checkpoints."""
        return sha256_of_checkpoints(self.teacher_path)

    def report(self):
        """Log something about the translations."""

    def resolve_engine(self, store, split, search):
        """The manifest's entry ``engine`` of a new store; see `resolve_engine`."""
        default = {"name": None, "compute_type": "float16" if self.half else None}
        requested = {"max_tokens": None, **default, **self.engine}
        how = self.device, self._converted(store), self.load_teacher, self.engine_flag
        resolved = resolve_engine(requested, search, *how)
        if resolved["name"] != CTranslate2Engine.name:
            return resolved
        return self.with_fastest(resolved, requested, store, split, search)

    def with_fastest(self, settings, requested, store, split, search):
        """Settings of CTranslate2 with what is fastest here, where nothing was asked for."""

        def build(changed):
            return self.build_engine(store, split, changed, search)

        given = [name for name, value in requested.items() if value]
        return with_fastest(settings, given, build, split.dataset, torch.device(self.device))

    def _converted(self, store):
        """The folder of the converted teacher."""
        sums = store.manifest["teacher"] if store.exists else self.teacher_sha256()
        return store.converted(sums)

    def build_engine(self, store, split, settings, search):
        """The engine of a manifest's entry; see `build_engine`."""
        return build_engine(
            settings,
            search,
            self.device,
            self.threads,
            self._converted(store),
            self.load_teacher,
            (self.sources(split).src_dict, split.dataset.tgt_dict),
        )
