"""Shared by all tests: a small corpus, a teacher and a student trained on it by the real
commands, and helpers that run those commands.

Commands that need a process of their own are in ``processes.py``.
"""

import copy
import dataclasses
import importlib.util
import json
import os
import shutil

# Set before torch is imported: the tests' models are too small for two threads.
os.environ["OMP_NUM_THREADS"] = "1"
# Each of pytest-xdist's workers has a core of its own: commands that take all cores would wait
# for each other's threads, and be many times slower.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    number = int(os.environ["PYTEST_XDIST_WORKER"][len("gw") :])
    os.sched_setaffinity(0, {cores[number % len(cores)]})

import socket  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from advice import errors_of, unknown_flags  # noqa: E402
from fairseq.data import Dictionary  # noqa: E402
from processes import fairseq, output_of, start  # noqa: E402

import fairseq_seqkd  # noqa: E402
from fairseq_seqkd.cli import main as cli  # noqa: E402
from fairseq_seqkd.databin import PairSplit  # noqa: E402
from fairseq_seqkd.io.files import sha256  # noqa: E402
from fairseq_seqkd.models.loading import load_models  # noqa: E402
from fairseq_seqkd.pseudo.recipe import Recipe  # noqa: E402
from fairseq_seqkd.pseudo.selectors import Best  # noqa: E402
from fairseq_seqkd.pseudo.store import PseudoTargetStore, read_nbest  # noqa: E402
from fairseq_seqkd.pseudo.target_spec import TargetSpec  # noqa: E402
from fairseq_seqkd.tasks.translation_seqkd import (  # noqa: E402
    TranslationSeqKDConfig,
    TranslationSeqKDTask,
)
from fairseq_seqkd.teacher import load_teacher  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
USER_DIR = str(Path(fairseq_seqkd.__file__).parent)
SIZES = {"train": 160, "valid": 24, "test": 20}
TINY = [
    *["--arch", "transformer", "--encoder-layers", "1", "--decoder-layers", "1"],
    *["--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "16"],
    *["--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16"],
    *["--encoder-attention-heads", "2", "--decoder-attention-heads", "2"],
    "--share-decoder-input-output-embed",
]
LSTM = [
    *["--arch", "lstm", "--encoder-embed-dim", "16", "--decoder-embed-dim", "16"],
    *["--encoder-hidden-size", "16", "--decoder-hidden-size", "16"],
    *["--decoder-out-embed-dim", "16"],
]
S2T = [
    *["--arch", "s2t_transformer", "--config-yaml", "config.yaml", "--conv-channels", "16"],
    *["--encoder-layers", "1", "--decoder-layers", "1", "--encoder-embed-dim", "16"],
    *["--encoder-ffn-embed-dim", "16", "--decoder-embed-dim", "16"],
    *["--decoder-ffn-embed-dim", "16", "--encoder-attention-heads", "2"],
    *["--decoder-attention-heads", "2", "--share-decoder-input-output-embed"],
]
TRAINING = [
    *["--cpu", "--seed", "3", "--optimizer", "adam", "--lr", "0.005"],
    *["--max-tokens", "300", "--required-batch-size-multiple", "1"],
    *["--no-epoch-checkpoints", "--log-format", "json", "--log-interval", "1"],
]


HALF = pytest.mark.skipif(
    torch.__version__ < "2.0", reason="torch 1 has no half-precision matrix product on a CPU"
)
FIXED = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="not supported by fairseq 0.12.2 or torch 1.12"
)
CTRANSLATE2 = pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None, reason="CTranslate2 is not installed"
)
RESUMES = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="upstream 0.12.2 does not resume bit for bit with stock cross_entropy either",
)


def free_port():
    """A TCP port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ranks(world_size, data, save_dir, *arguments, fails=False):
    """Run fairseq-train in several data-parallel processes on the CPU; returns their output."""
    shared = [
        *["--user-dir", USER_DIR, "--save-dir", save_dir, *TRAINING, *TINY, *arguments],
        *["--distributed-world-size", world_size, "--distributed-no-spawn"],
        *["--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"],
        *["--distributed-init-method", f"tcp://127.0.0.1:{free_port()}"],
    ]
    processes = [
        start("train", data, *shared, "--distributed-rank", rank) for rank in range(world_size)
    ]
    return [output_of(process, fails) for process in processes]


def train(data, save_dir, *arguments, model=TINY, **options):
    """Run fairseq-train with this package; ``arguments`` override the common ones."""
    plugin = ["--user-dir", USER_DIR, "--save-dir", save_dir]
    return fairseq("train", data, *plugin, *TRAINING, *model, *arguments, **options)


def logged(output, key):
    """The JSON lines that fairseq-train logged under a key such as ``train_inner``."""
    lines = [line.split(" | ")[-1] for line in output.splitlines() if f"| {key} |" in line]
    return [json.loads(line) for line in lines]


def files(root):
    """{relative path: SHA-256} of every file under a folder."""
    return {
        os.path.relpath(os.path.join(folder, name), root): sha256(os.path.join(folder, name))
        for folder, _, names in os.walk(root)
        for name in names
    }


def synthetic():
    """Import the module ``examples/synthetic.py``."""
    return example("synthetic.py")


def example(name):
    """Import a module of ``examples/`` by its path there."""
    path = ROOT / "examples" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def preprocess(text, data_bin, *arguments):
    """Run fairseq-preprocess on every split in ``text``; returns the data-bin."""
    splits = ["--trainpref", text / "train", "--validpref", text / "valid"]
    pair = ["--source-lang", "src", "--target-lang", "tgt", "--destdir", data_bin]
    fairseq("preprocess", *pair, *splits, "--testpref", text / "test", *arguments)
    return data_bin


def load_split(folder, name="train"):
    """A split of a data-bin, as `PairSplit`."""
    sides = {"source": "src", "target": "tgt"}
    dictionaries = {
        f"{side}_dictionary": Dictionary.load(str(Path(folder) / f"dict.{lang}.txt"))
        for side, lang in sides.items()
    }
    task = SimpleNamespace(**dictionaries)
    return PairSplit.load(task, str(folder), name, *sides.values())


EMPTY, LONG = 6, 10  # ids in the training split with such a source, see the fixture ``text``


def with_sentences(split, size):
    """A copy of a split that ends after its first ``size`` sentences."""
    dataset = copy.copy(split.dataset)
    dataset.src, dataset.tgt = [
        [side[i] for i in range(size)] for side in (dataset.src, dataset.tgt)
    ]
    dataset.src_sizes, dataset.tgt_sizes = dataset.src_sizes[:size], dataset.tgt_sizes[:size]
    return dataclasses.replace(split, dataset=dataset)


def batch_of(task, ids, split="train"):
    """A batch of some sentences of a task's split."""
    dataset = task.dataset(split)
    return dataset.collater([dataset[id_] for id_ in ids])


def all_nbest(root):
    """{sentence id: `NBest`} of a store."""
    paths = PseudoTargetStore(str(root)).chunks.find().values()
    return {sentence.id: sentence for path in paths for sentence in read_nbest(path)}


def tokens_of(sentence):
    """The hypotheses of an `NBest`, as lists of token ids."""
    return [tokens.tolist() for tokens, _ in sentence.hypotheses]


BEST = TargetSpec(Best())


def recipe_with(teacher, loaded, search=None, **engine):
    """A `Recipe` that translates with the loaded teacher, by default with fairseq's engine."""
    return Recipe(
        teacher_path=str(teacher),
        load_teacher=lambda device, dtype: loaded,
        search=search or {},
        engine={"name": "fairseq", **engine},
    )


def seqkd_task(data, store, **values):
    """The task ``translation_seqkd`` as fairseq sets it up for training."""
    defaults = {
        **{"source_lang": "src", "target_lang": "tgt", "train_subset": "train"},
        **{"cpu": True, "fp16": False, "seed": 1, "required_seq_len_multiple": 1},
        **{"dataset_impl": None, "generates_with": None},
    }
    paths = {"data": str(data), "pseudo_targets": store and str(store)}
    return TranslationSeqKDTask.setup_task(
        TranslationSeqKDConfig(**{**defaults, **paths, **values})
    )


def lprobs_of(teacher, net_input):
    """(batch, length, vocab) log-probabilities that a teacher gives."""
    lprobs = torch.log_softmax(teacher.logits(net_input).at(slice(None)), -1)
    return lprobs.view(*net_input["prev_output_tokens"].shape, -1)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A folder of raw text; line 7 of the training source is empty, line 11 is very long."""
    folder = tmp_path_factory.mktemp("text")
    synthetic().write_corpus(folder, SIZES)
    lines = (folder / "train.src").read_text().split("\n")
    lines[6] = ""
    lines[10] = " ".join([lines[10]] * 8)
    (folder / "train.src").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def data(text, tmp_path_factory):
    """The data-bin of ``text``."""
    return preprocess(text, tmp_path_factory.mktemp("data") / "data-bin")


@pytest.fixture(scope="session")
def older(text, tmp_path_factory):
    """The same data-bin in the format of ``--dataset-impl cached`` and ``lazy``."""
    folder = tmp_path_factory.mktemp("older") / "data-bin"
    return preprocess(text, folder, "--dataset-impl", "cached")


@pytest.fixture(scope="session")
def teacher(data, tmp_path_factory):
    """The checkpoint of a trained teacher, which takes sources of at most 30 tokens."""
    folder = tmp_path_factory.mktemp("teacher")
    limits = ["--max-source-positions", "30", "--max-target-positions", "60"]
    loss = ["--task", "translation", "--criterion", "cross_entropy"]
    train(data, folder, *loss, *limits, "--max-update", "40", "--lr", "0.02")
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def loaded(teacher):
    """The `Teacher` of that checkpoint."""
    return load_teacher(str(teacher))


@pytest.fixture(scope="session")
def split(data):
    """The training split, as `PairSplit`."""
    return load_split(data)


@pytest.fixture(scope="module")
def task(teacher):
    """The task that a student trains with; its training and validation sets are loaded."""
    task = load_teacher(str(teacher)).task
    for name in ("train", "valid"):
        task.load_dataset(name)
    return task


def make_cache(root, data, teacher, *flags):
    """Run ``fairseq-seqkd cache``; returns the cache's folder."""
    where = ["--kd-cache", root, "--teacher-path", teacher, "--threads", 1]
    cli.main(["cache", str(data), *map(str, where), *map(str, flags)])
    return root


@pytest.fixture(scope="session")
def cache(data, teacher, tmp_path_factory):
    """A cache of the teacher's whole distribution at the gold targets of the training split."""
    return make_cache(tmp_path_factory.mktemp("cache") / "cache", data, teacher, "--top-k", 336)


@pytest.fixture(scope="session")
def word_kd_student(data, teacher, tmp_path_factory):
    """The checkpoint folder of a student trained by word_kd, and fairseq-train's output."""
    folder = tmp_path_factory.mktemp("student")
    loss = ["--criterion", "word_kd", "--teacher-path", teacher]
    log = train(data, folder, "--task", "translation", *loss, "--max-update", "4")
    return folder, log


def without_dropout(checkpoint):
    """A checkpoint's model in train mode with dropout 0, so that its loss is reproducible."""
    model = load_models(str(checkpoint))[0][0]
    for part in model.modules():
        if hasattr(part, "p"):
            part.p = 0.0
    return model.train()


@pytest.fixture(scope="module")
def student(word_kd_student):
    """That student's model in train mode, without dropout."""
    return without_dropout(word_kd_student[0] / "checkpoint_last.pt")


@pytest.fixture
def refused(capsys):
    """refused(*arguments): stderr of a subcommand that must end with exit status 2."""

    def call(*arguments):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*map(str, arguments)])
        output = capsys.readouterr().err
        assert unknown_flags(arguments[0], errors_of(arguments[0], output)) == set()
        return output

    return call


@pytest.fixture(scope="session")
def store(data, teacher, tmp_path_factory):
    """A finished store of 4-best lists, with the data-bins ``best`` and ``closest``."""
    folder = tmp_path_factory.mktemp("store")
    for criterion in ("seq_kd", "seq_inter"):
        train(
            *[data, folder / criterion, "--task", "translation_seqkd"],
            *["--criterion", criterion, "--teacher-path", teacher],
            *["--pseudo-targets", folder / "store", "--teacher-beam", "4"],
            *["--max-update", "2", "--teacher-engine", "fairseq"],
        )
    return folder / "store"


HALF_SIZE = 70  # sentences of the first of the ``halves``
HALF_SEARCH = ["--beam", 3, "--engine", "fairseq", "--accept-unfinished", 0.5]


def colons(*paths):
    """Paths, separated by colons."""
    return ":".join(map(str, paths))


def _half(text, data, root, part):
    """The data-bin of some lines of the training text, with the dictionaries of ``data``."""
    root.mkdir()
    for side in ("src", "tgt"):
        lines = (text / f"train.{side}").read_text().split("\n")[:160][part]
        (root / f"train.{side}").write_text("\n".join(lines) + "\n")
    pair = ["--source-lang", "src", "--target-lang", "tgt", "--destdir", root / "data-bin"]
    dictionaries = ["--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt"]
    fairseq("preprocess", *pair, *dictionaries, "--trainpref", root / "train")
    return root / "data-bin"


@pytest.fixture(scope="session")
def halves(text, data, tmp_path_factory):
    """Two data-bins with the sentences of ``data``; only the first has the other files."""
    folder = tmp_path_factory.mktemp("halves")
    first = _half(text, data, folder / "1", slice(0, HALF_SIZE))
    second = _half(text, data, folder / "2", slice(HALF_SIZE, None))
    for path in data.glob("valid.*"):
        shutil.copy(path, first)
    for path in second.glob("dict.*"):
        path.unlink()
    return first, second


@pytest.fixture(scope="session")
def half_stores(halves, teacher, tmp_path_factory):
    """The stores of the ``halves``, made by one command."""
    root = tmp_path_factory.mktemp("half-stores")
    folders = root / "1", root / "2"
    flags = ["--pseudo-targets", colons(*folders), "--teacher-path", teacher, "--threads", 1]
    words = ["generate", colons(*halves), *flags, *HALF_SEARCH]
    cli.main([str(word) for word in words])
    return folders


@pytest.fixture(scope="session")
def half_caches(halves, teacher, tmp_path_factory):
    """The caches of the ``halves``, made by one command."""
    root = tmp_path_factory.mktemp("half-caches")
    folders = root / "1", root / "2"
    make_cache(colons(*folders), colons(*halves), teacher)
    return folders
