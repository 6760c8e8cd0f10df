"""The folder of a round, the options it is made with, and their checks.

manifest.json          student, teacher, data and options; never changes
sources/               the sentences that were drawn (--sentences)
student/               the store of the student's hypotheses, and the data-bin of them, ``best``
unfiltered/            data-bin and cache of all pairs, if the teacher's score filters them
data-bin/, cache/      the round's pairs and the teacher's distributions over them: to train on
report.json            how many pairs of which kind there are, and their scores
"""

import os

from fairseq_seqkd.cache.build import check_settings
from fairseq_seqkd.chunked.manifest import ManifestFolder
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.models.adapters import DTYPES
from fairseq_seqkd.models.checkpoints import sha256_of_checkpoints
from fairseq_seqkd.pseudo.filters import check_filters

SEARCH = {
    "beam": 1,
    "max_len_a": 0,
    "max_len_b": 200,
    "sampling": False,
    "sampling_topk": -1,
    "sampling_topp": -1.0,
    "seed": 1,
}
ENGINE = {"engine": "auto", "compute_type": None}
DATA = {
    "sentences": None,
    "mix_fraction": 0.0,
    "filter_length_ratio": None,
    "filter_score_percentile": None,
}
SCORING = {"top_k": 8, "temperature": 1.0, "teacher_dtype": "float32", "max_tokens": None}
# The options of a new round.
DEFAULTS = {**SEARCH, **ENGINE, **DATA, **SCORING}


class Round(ManifestFolder):
    """The folder of a round; see the head of this file."""

    FLAG, KIND, FORMAT = "--out", "round", 1

    @property
    def options(self):
        """{name in ``DEFAULTS``: value}."""
        return self.manifest["options"]

    @property
    def databin(self):
        """The data-bin to train on."""
        return self.path("data-bin")

    @property
    def cache(self):
        """The cache to train with."""
        return self.path("cache")

    @property
    def scored(self):
        """The folder of the data-bin and cache of all pairs that the teacher scores."""
        return self.path("unfiltered") if self.filters_scores else self.root

    @property
    def filters_scores(self):
        """Whether pairs are rejected by the teacher's score."""
        return self.options["filter_score_percentile"] is not None

    @property
    def search(self):
        """The values of `SearchOptions` by name."""
        options = self.options
        return {**{name: options[name] for name in SEARCH}, "nbest": options["beam"]}

    @property
    def scoring(self):
        """The settings of the cache by name."""
        options = self.options
        settings = {name: options[name] for name in ("top_k", "temperature", "max_tokens")}
        return {**settings, "dtype": options["teacher_dtype"]}


def open_round(root, split, other, student, teacher, options):
    """Open a round and check it, or begin a new one.

    Args:
        root: its folder
        split: `PairSplit` with the sources
        other: `PairSplit` with the pairs that may be mixed in
        student, teacher: checkpoint files, several separated by colons
        options: {name in ``DEFAULTS``: value}; None means that of an existing round, or the
            default
    Returns:
        `Round`
    Raises:
        FileNotFoundError: a checkpoint does not exist
        ValueError: the round was begun with something else, or an option is out of its range
    """
    round_ = Round(root)
    expected = {
        **split.describe(),
        "mixed_from": other.describe()["data"],
        "student": sha256_of_checkpoints(student),
        "teacher": sha256_of_checkpoints(teacher),
        "options": options,
    }
    if round_.exists:
        round_.check(expected)
        return round_
    _refuse_other_files(root)
    given = {name: value for name, value in options.items() if value is not None}
    options = {**DEFAULTS, **given}
    check_options(options, split, other)
    round_.create({**expected, "options": options})
    return round_


def _refuse_other_files(root):
    names = [] if not os.path.isdir(root) else sorted(os.listdir(root))
    names = [name for name in names if not name.endswith(".part")]
    if names and not os.path.exists(os.path.join(root, "manifest.json")):
        raise ValueError(
            f"--out: {root!r} has {names[0]!r} and no manifest.json, so that it is no round: "
            "expected the name of a new folder, or of a round that was begun"
        )


def check_options(options, split, other):
    """Refuse options that are out of range or do not go with the data.

    Args:
        options: {name in ``DEFAULTS``: value}
        split, other: as for `open_round`
    Raises:
        ValueError: names the flag
    """
    fraction, sentences, seed = (options[n] for n in ("mix_fraction", "sentences", "seed"))
    if options["sampling"] and options["beam"] != 1:
        raise ValueError(
            f"--beam is {options['beam']} with --sampling: a round has one sample of every "
            "sentence. Leave --beam out."
        )
    SearchOptions(nbest=options["beam"], **{name: options[name] for name in SEARCH})
    filters = ("length_ratio", "score_percentile")
    check_filters({name: options[f"filter_{name}"] for name in filters})
    check_settings(options, len(split.task.target_dictionary))
    if options["teacher_dtype"] not in DTYPES:
        raise ValueError(
            f"--teacher-dtype is {options['teacher_dtype']!r}, expected one of "
            f"{', '.join(DTYPES)}"
        )
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed is {seed}, expected a whole number from 0 to {2**32 - 1}")
    if not 0 <= fraction < 1:
        raise ValueError(
            f"--mix-fraction is {fraction}, expected from 0 to below 1: the fraction of the "
            "round's pairs that the student did not generate"
        )
    if fraction and not other.has_gold:
        raise ValueError(
            f"--mix-fraction is {fraction}, and {other.folder!r} has sources only. Name a "
            "data-bin with targets by --mix-with, such as a store's."
        )
    if sentences is not None and not 1 <= sentences <= len(split):
        raise ValueError(
            f"--sentences is {sentences}, expected from 1 to {len(split)}, the sentences of "
            f"{split.name!r} in {split.folder!r}"
        )
