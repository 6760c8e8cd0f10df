"""Multilingual tasks from end to end: teachers with language tokens, students with and without.

The right output is always that of stock ``fairseq-generate`` with the teacher's own task.
"""

import math
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import (
    SIZES,
    TINY,
    USER_DIR,
    all_nbest,
    logged,
    synthetic,
    tokens_of,
    train,
)
from fairseq import options, tasks
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from processes import Failed, fairseq

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.prefixes import PREFIXES, TrainingStep
from fairseq_seqkd.teacher import NothingAdded, load_teacher

PAIRS = ("aa-bb", "aa-cc")
SHARED = ["--share-all-embeddings"]
SHARED_OF_ALL = [
    *["--arch", "multilingual_transformer", "--share-encoders", "--share-decoders"],
    *["--share-all-embeddings", "--share-decoder-input-output-embed"],
]
MULTI = ["--lang-pairs", ",".join(PAIRS), "--encoder-langtok", "tgt", "--decoder-langtok"]
TASKS = {
    "simple_epoch": ["translation_multi_simple_epoch", *MULTI],
    "multilingual": ["multilingual_translation", *MULTI],
    "bart": [
        *["translation_from_pretrained_bart", "-s", "aa", "-t", "bb", "--langs", "aa,bb,cc"],
        *["--max-update", "120"],
    ],
    "plain": ["translation", "-s", "aa", "-t", "bb"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data-bin of the pairs aa-bb and aa-cc with one joined dictionary, without tokens."""
    text = tmp_path_factory.mktemp("text")
    synthetic().write_corpus(text, SIZES)
    for split in SIZES:
        for lang, name in (("aa", "src"), ("bb", "tgt")):
            (text / f"{split}.{name}").rename(text / f"{split}.{lang}")
        lines = (text / f"{split}.bb").read_text().splitlines()
        reversed_ = [" ".join(reversed(line.split())) for line in lines]
        (text / f"{split}.cc").write_text("\n".join(reversed_) + "\n")
    folder = tmp_path_factory.mktemp("data") / "data-bin"
    joined = ["--joined-dictionary"]
    for pair in PAIRS:
        source, target = pair.split("-")
        splits = [f"--{split}pref={text / split}" for split in SIZES]
        languages = ["--source-lang", source, "--target-lang", target]
        fairseq("preprocess", *languages, *splits, "--destdir", folder, *joined)
        joined = ["--srcdict", folder / "dict.aa.txt", "--joined-dictionary"]
    return folder


@pytest.fixture(scope="module", params=list(TASKS))
def teacher(request, data, repaired, tmp_path_factory):
    """A trained teacher: its checkpoint, and the flags of its task."""
    folder = tmp_path_factory.mktemp("teacher")
    return trained(data, folder, [*TASKS[request.param], "--user-dir", repaired])


# translation_from_pretrained_bart cannot train nor translate in fairseq 0.12: it reads
# ``self.args``, which is ``self.cfg`` now. Its checkpoints are older ones. This plug-in lets
# stock commands run it.
REPAIRED = """
import fairseq_seqkd
from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask
TranslationFromPretrainedBARTTask.args = property(lambda task: task.cfg)
"""


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    """The folder of that plug-in."""
    folder = tmp_path_factory.mktemp("plugin") / "repaired"
    folder.mkdir()
    (folder / "__init__.py").write_text(REPAIRED)
    return folder


def trained(data, folder, task, *more):
    model = TINY + SHARED if "multilingual_translation" not in task else TINY + SHARED_OF_ALL
    loss = ["--criterion", "cross_entropy", "--max-update", "60", "--lr", "0.02"]
    train(data, folder, *loss, "--task", *task, *more, model=model)
    return SimpleNamespace(path=folder / "checkpoint_last.pt", task=task)


def stock_hypotheses(data, teacher, subset, pair="aa-bb"):
    """{id: the words of the best hypothesis} that stock fairseq-generate prints."""
    source, target = pair.split("-")
    leave_out = ("-s", "-t", "aa", "bb", "--max-update", "120")
    task = [flag for flag in teacher.task if flag not in leave_out]
    output = fairseq(
        *["generate", data, "--path", teacher.path, "--cpu"],
        *["--task", *task, "-s", source, "-t", target, "--gen-subset", subset],
        *["--beam", 4, "--required-batch-size-multiple", 1, "--max-tokens", 500],
    )
    found = re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", output, re.MULTILINE)
    return {int(id_): (words, float(score)) for id_, score, words in found}


def dictionary_of(data):
    return Dictionary.load(str(data / "dict.bb.txt"))


def directions_of(teacher):
    """The pairs that a teacher translates."""
    return PAIRS[:1] if "aa" in teacher.task else PAIRS


def seqkd(command, data, pair, teacher, *flags):
    """Run a subcommand in this process for one direction."""
    source, target = pair.split("-")
    where = [data, "-s", source, "-t", target, "--teacher-path", teacher.path, "--threads", 1]
    cli.main([command, *map(str, where), *map(str, flags)])


def test_generate_equals_stock(teacher, data, tmp_path):
    for pair in directions_of(teacher):
        flags = ["--beam", 4, "--engine", "fairseq", "--pseudo-targets", tmp_path / pair]
        seqkd("generate", data, pair, teacher, *flags)
        expected = stock_hypotheses(data, teacher, "train", pair)
        dictionary, stored = dictionary_of(data), all_nbest(tmp_path / pair)
        assert len(stored) == len(expected) == SIZES["train"]
        for id_, sentence in stored.items():
            if sentence.hypotheses:
                tokens, score = sentence.hypotheses[0]
                words, of_stock = expected[id_]
                assert dictionary.string(torch.from_numpy(tokens)) == words
                assert tokens[-1] == dictionary.eos() and max(tokens) < len(dictionary)
                assert score / math.log(2) == pytest.approx(of_stock, abs=2e-3)
        assert sum(bool(sentence.hypotheses) for sentence in stored.values()) > 100


@pytest.fixture(scope="module")
def multilingual(data, tmp_path_factory):
    """The teacher of ``translation_multi_simple_epoch``."""
    return trained(data, tmp_path_factory.mktemp("multi"), TASKS["simple_epoch"])


@pytest.fixture(scope="module")
def with_tokens(data, tmp_path_factory):
    """The same data-bin, whose dictionaries have the language tokens."""
    folder = tmp_path_factory.mktemp("tokens") / "data-bin"
    shutil.copytree(data, folder)
    for path in folder.glob("dict.*.txt"):
        with open(path, "a") as file:
            file.write("__aa__ 1\n__bb__ 1\n__cc__ 1\n")
    return folder


def test_a_draft_changes_nothing_of_its_output(teacher, data, capsys):
    """It drafts for itself; language tokens are forced, and are no part of the output."""
    for pair in directions_of(teacher):
        flags = ["--draft", teacher.path, "--split", "valid", "--max-len-b", 12, "--cpu"]
        seqkd("translate", data, pair, teacher, *flags)
        lines = capsys.readouterr().out.splitlines()
        split = open_split(str(data), "valid", *pair.split("-"))
        model = load_teacher(str(teacher.path), student_task=split.task)
        assert len(lines) == len(split)
        for source, line in zip(split.dataset.src, lines):
            lengths = torch.tensor([len(source)])
            inputs = {"src_tokens": source.unsqueeze(0), "src_lengths": lengths}
            (found,) = model.generate(inputs, SearchOptions(beam=1, max_len_b=12))
            expected = split.dataset.tgt_dict.string(found[0]["tokens"][:-1])
            assert line == expected or len(line.split()) >= 11  # both were cut


def test_dictionaries_may_have_the_tokens(data, with_tokens, multilingual, tmp_path):
    flags = ["--beam", 2, "--engine", "fairseq", "--split", "valid", "--pseudo-targets"]
    for name, folder in (("without", data), ("with", with_tokens)):
        seqkd("generate", folder, "aa-cc", multilingual, *flags, tmp_path / name)
    one, other = (all_nbest(tmp_path / name) for name in ("without", "with"))
    assert {id_: tokens_of(one[id_]) for id_ in one} == {
        id_: tokens_of(other[id_]) for id_ in other
    }


def test_fairseq_generate_with_another_task_is_refused(with_tokens, multilingual, tmp_path):
    flags = ["--task", "translation_seqkd", "-s", "aa", "-t", "bb", "--cpu"]
    store = ["--user-dir", USER_DIR, "--pseudo-targets", tmp_path / "store"]
    path = ["--path", multilingual.path, "--gen-subset", "valid"]
    message = "which was trained with --task translation_multi_simple_epoch"
    with pytest.raises(Failed, match=message):
        fairseq("generate", with_tokens, *flags, *store, *path)
    assert not (tmp_path / "store").exists()


STUDENT = ["--task", "translation", "-s", "aa", "-t", "cc"]


def losses(data, folder, *flags, updates=3):
    """The losses that fairseq-train logs."""
    log = train(data, folder, *flags, "--max-update", updates, "--dropout", 0)
    return [float(entry["loss"]) for entry in logged(log, "train_inner")]


def test_a_bilingual_student_learns_from_it_with_and_without_a_cache(
    data, multilingual, tmp_path
):
    path = ["--teacher-path", multilingual.path]
    live = losses(data, tmp_path / "live", *STUDENT, "--criterion", "word_kd", *path)
    size = len(dictionary_of(data))
    flags = ["--top-k", size, "--kd-cache", tmp_path / "cache"]
    seqkd("cache", data, "aa-cc", multilingual, *flags)
    cache = ["--kd-cache", tmp_path / "cache"]
    cached = losses(data, tmp_path / "cached", *STUDENT, "--criterion", "word_kd", *cache)
    assert cached == pytest.approx(live, abs=2e-2)
    with pytest.raises(Failed, match="the cache .* is of other sentences than this training"):
        other = ["--task", "translation", "-s", "aa", "-t", "bb", "--criterion", "word_kd"]
        losses(data, tmp_path / "other", *other, *cache)


def test_a_cache_belongs_to_one_direction(data, multilingual, tmp_path, refused):
    where = [data, "--teacher-path", multilingual.path, "--kd-cache", tmp_path / "cache"]
    message = refused("cache", *where)
    assert "cannot be inferred from its files (found ['aa-bb', 'aa-cc'])" in message
    assert "give --source-lang and --target-lang" in message
    seqkd("cache", data, "aa-cc", multilingual, "--kd-cache", tmp_path / "cache")
    message = refused("cache", *where, "-s", "aa", "-t", "bb")
    assert "was made from other data or with other settings" in message and "aa-cc" in message


@pytest.mark.parametrize("policy", ["gkd", "skd"])
def test_students_generate_beside_it(data, multilingual, tmp_path, policy):
    flags = ["--criterion", "distill", "--kd-prefixes", "interleaved"]
    if policy == "gkd":
        flags = ["--criterion", "gkd", "--max-update", 3]
    path = ["--teacher-path", multilingual.path]
    assert len(losses(data, tmp_path, *STUDENT, *flags, *path)) == 3


def test_student_rows_begin_as_the_rows_of_the_data(data, multilingual):
    """A student of the teacher's own task: a batch of both directions."""
    parser = options.get_training_parser()
    task_flags = ["--task", *TASKS["simple_epoch"]]
    args = options.parse_args_and_arch(parser, [str(data), *task_flags, *TINY, *SHARED])
    task = tasks.setup_task(convert_namespace_to_omegaconf(args).task)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[id_] for id_ in (0, 1, 30, 31, 40)])
    student = load_teacher(str(multilingual.path), str(data), languages=("aa", "bb"))
    teacher = load_teacher(str(multilingual.path), str(data), student_task=task)
    assert isinstance(teacher.language_tokens, NothingAdded)  # they read the same
    policy = PREFIXES.resolve("student", {"kd_schedule": "constant", "kd_beta": 0.0})()
    settled = policy(batch, student.models[0], teacher, task, TrainingStep(1, 7, 0.5))
    assert settled.student_rows_mask.all()
    gold = batch["net_input"]["prev_output_tokens"]
    contexts, target = (
        settled.sample["net_input"]["prev_output_tokens"],
        settled.sample["target"],
    )
    assert torch.equal(contexts[:, :2], gold[:, :2])
    assert torch.equal(target[:, 0], gold[:, 1])  # the language's token
    assert len(gold[:, 1].unique()) == 2
    assert torch.equal(
        target[:, :-1][target[:, 1:].ne(1)], contexts[:, 1:][target[:, 1:].ne(1)]
    )
    # As the same model's own greedy search goes on.
    for row in range(len(target)):
        lang = task.target_dictionary[int(gold[row, 1])].strip("_")
        model = load_teacher(str(multilingual.path), str(data), languages=("aa", lang))
        sources = {
            "src_tokens": batch["net_input"]["src_tokens"][row : row + 1],
            "src_lengths": batch["net_input"]["src_lengths"][row : row + 1],
        }
        model.language_tokens = NothingAdded()
        best = model.generate(sources, SearchOptions(beam=1))[0][0]["tokens"]
        ours = target[row][target[row].ne(1)]
        assert torch.equal(best[: len(ours)], ours)


@pytest.mark.parametrize(
    "flags",
    [
        ["--criterion", "imit_kd", "--max-update", "3"],
        ["--criterion", "distill", "--kd-prefixes", "interleaved"],
    ],
)
def test_a_student_of_the_same_task(data, multilingual, tmp_path, flags):
    task = ["--task", *TASKS["simple_epoch"]]
    path = ["--teacher-path", multilingual.path]
    log = train(data, tmp_path, *task, *flags, *path, "--max-update", 3, model=TINY + SHARED)
    rows = [float(entry["student_rows"]) for entry in logged(log, "train_inner")]
    assert len(rows) == 3 and max(rows) > 0


def test_evaluate_takes_a_direction(data, multilingual, capsys, refused, tmp_path):
    where = [data, "--checkpoints", f"multi={multilingual.path}", "--rounds", 1]
    assert "give --source-lang and --target-lang" in refused("evaluate", *where)
    flags = ["-s", "aa", "-t", "cc", "--beams", 1, "--engines", "fairseq", "--devices", "cpu"]
    cli.main(["evaluate", *map(str, where), *map(str, flags), "--out", str(tmp_path / "out")])
    assert "multi" in capsys.readouterr().out


def test_languages_that_it_does_not_know_are_refused(data, multilingual):
    with pytest.raises(ValueError, match="does not know the language 'zz': expected two of aa"):
        load_teacher(str(multilingual.path), str(data), languages=("aa", "zz"))


def test_the_other_direction_is_refused(data, tmp_path, refused):
    plain = trained(data, tmp_path / "plain", TASKS["plain"], "--max-update", "1")
    message = refused(
        *["generate", data, "-s", "bb", "-t", "aa", "--teacher-path", plain.path],
        *["--pseudo-targets", tmp_path / "store"],
    )
    assert "the model translates from aa to bb, expected from bb to aa" in message


def test_students_of_one_model_a_direction_are_refused(data, multilingual, tmp_path):
    flags = ["--task", *TASKS["multilingual"], "--criterion", "word_kd"]
    with pytest.raises(Failed, match="multilingual_translation has a model for each of"):
        train(
            data,
            tmp_path,
            *flags,
            "--teacher-path",
            multilingual.path,
            model=TINY + SHARED_OF_ALL,
        )
