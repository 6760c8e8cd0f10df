"""``generate --teacher-ct2``: a teacher in CTranslate2's format, with subwords of its own."""

import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from advice import errors_of, unknown_flags
from conftest import EMPTY, all_nbest, files, load_split, preprocess, train
from processes import dies_while_writing, ended_well, fairseq, start_command

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.models.stored_lines import StoredLines, storing_lines
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.store import PseudoTargetStore

ctranslate2 = pytest.importorskip("ctranslate2")
SHARED = Path(__file__).resolve().parents[3] / "shared" / "multi30k"


def cut_files(pieces, folder, new_folder):
    """Cut all files of a folder into subwords."""
    new_folder.mkdir()
    for path in folder.iterdir():
        lines = path.read_text().split("\n")
        cut = [" ".join(pieces.encode(line, out_type=str)) for line in lines]
        (new_folder / path.name).write_text("\n".join(cut))


@pytest.fixture(scope="module")
def outside(text, tmp_path_factory):
    """A folder with a teacher of the test's text in other subwords, and its conversion.

    spm.model, data-bin/, teacher.pt, and ct2/ as ``fairseq-seqkd export`` makes it.
    """
    folder = tmp_path_factory.mktemp("outside")
    sentencepiece.SentencePieceTrainer.train(
        input=[str(text / "train.src"), str(text / "train.tgt")],
        model_prefix=str(folder / "spm"),
        vocab_size=120,
        model_type="bpe",
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    cut_files(pieces, text, folder / "text")
    data = preprocess(folder / "text", folder / "data-bin")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "250"]
    limits = ["--max-source-positions", "90", "--max-target-positions", "90"]
    train(data, folder / "run", *loss, *limits, "--lr", "0.02")
    shutil.copy(folder / "run" / "checkpoint_last.pt", folder / "teacher.pt")
    for side in ("src", "tgt"):
        shutil.copy(data / f"dict.{side}.txt", folder)
    words = ["export", folder / "teacher.pt", "--to", "ctranslate2", "--out", folder / "ct2"]
    main([*map(str, words), "--no-check"])
    return folder


@pytest.fixture
def by(outside):
    """Flags: the teacher, which makes words up, and its sentencepiece model."""
    return [
        "--accept-unknown",
        1,
        "--teacher-ct2",
        outside / "ct2",
        "--teacher-spm",
        outside / "spm.model",
    ]


@pytest.fixture
def source(text):
    return ["--source-text", text / "train.src"]


@pytest.fixture
def run(data, tmp_path, capsys):
    """Run ``generate`` or another subcommand; returns its output, or its error message."""

    def call(*arguments, name="generate", fails=False, root=tmp_path / "store", folder=data):
        words = [name, folder, "--pseudo-targets", root, "--threads", 1, *arguments]
        try:
            main([*map(str, words), "--accept-unfinished", "1"])
            assert not fails
        except SystemExit as error:
            assert fails and error.code == 2
        captured = capsys.readouterr()
        message = errors_of(name, captured.err)
        assert not fails or unknown_flags(name, message) == set()
        return message if fails else captured.out

    return call


@pytest.fixture(scope="module")
def expected(outside, tmp_path_factory):
    """{id: [(text, score)]} that the fairseq teacher generates for the training split."""
    root = tmp_path_factory.mktemp("expected") / "store"
    words = ["generate", outside / "data-bin", "--teacher-path", outside / "teacher.pt"]
    words += ["--pseudo-targets", root, "--beam", 4, "--threads", 1, "--engine", "ctranslate2"]
    words += ["--no-check", "--accept-unfinished", 1]
    main([*map(str, words)])
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(outside / "spm.model"))
    symbols = load_split(outside / "data-bin").dataset.tgt_dict.symbols

    def text_of(tokens):
        return pieces.decode([symbols[token] for token in tokens[:-1]])

    lists = all_nbest(root)
    return {i: [(text_of(t), s) for t, s in lists[i].hypotheses] for i in lists}


def texts_and_scores(root, dictionary):
    """{id: [(text, score)]} of a store in whole words."""
    return {
        i: [(dictionary.string(tokens), score) for tokens, score in one.hypotheses]
        for i, one in all_nbest(root).items()
    }


def test_the_store_has_its_translations_in_the_students_subwords(
    run, by, source, expected, data, tmp_path
):
    output = run(*by, *source, "--beam", 4)
    split = load_split(data)
    found = texts_and_scores(tmp_path / "store", split.dataset.tgt_dict)
    words, n_lists, n_fewer = set(split.dataset.tgt_dict.symbols), 0, 0
    for id_, hypotheses in expected.items():
        wanted = {}
        for text, score in hypotheses:
            text = " ".join(word if word in words else "<unk>" for word in text.split())
            if text:
                wanted.setdefault(text, score)
        assert [text for text, _ in found[id_]] == list(wanted)
        assert [s for _, s in found[id_]] == pytest.approx(list(wanted.values()), rel=1e-3)
        n_lists += len(wanted) > 1
        n_fewer += len(wanted) < len(hypotheses)
    assert n_lists > 40 and n_fewer > 0
    assert all_nbest(tmp_path / "store")[EMPTY].status == "empty source"
    assert "keep their gold target: empty source" in output
    manifest = PseudoTargetStore(str(tmp_path / "store")).manifest
    assert manifest["engine"]["name"] == "ctranslate2-text"
    assert manifest["engine"]["max_positions"] == 90 and len(manifest["teacher"]) >= 5
    assert "closest: " in run("--select", "closest", name="merge")
    message = run("--lenpen", 1.4, name="merge", fails=True)
    assert "divided by lengths in its own subwords" in message


def test_new_text_gives_the_same_translations(run, by, source, text, data, tmp_path):
    run(*by, *source, "--beam", 4, root=tmp_path / "bitext")
    found = texts_and_scores(tmp_path / "bitext", load_split(data).dataset.tgt_dict)
    lines = (text / "train.src").read_text().splitlines()
    flags = [*by, "--text", text / "train.src", "--beam", 4]
    output = run(*flags)
    ids = {}
    for id_, line in enumerate(lines):
        ids.setdefault(line, id_)
    ids.pop("")
    store = texts_and_scores(tmp_path / "store", load_split(data).dataset.tgt_dict)
    for new_id, id_ in enumerate(ids.values()):
        assert [t for t, _ in store[new_id]] == [t for t, _ in found[id_]]
        assert [s for _, s in store[new_id]] == pytest.approx([s for _, s in found[id_]], 1e-3)
    assert "lines are left out: empty" in output and "with stock fairseq" in output
    before = files(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "best")
    for chunk in (tmp_path / "store" / "nbest").glob("chunk-*"):
        chunk.unlink()
    message = run(fails=True)
    assert "are missing). Give --teacher-ct2 FOLDER and what else it was begun with" in message
    run(*by, "--beam", 4)  # the text is in the store
    assert files(tmp_path / "store") == before


@pytest.mark.parametrize("from_text", [False, True], ids=["source-text", "text"])
def test_kills_and_shards_end_in_the_same_store(by, source, data, text, tmp_path, from_text):
    """Killed when it writes for the n-th time: while it stores text, and in chunks."""
    what = ["--text", text / "train.src"] if from_text else source
    common = [data, *by, *what, "--threads", 1, "--accept-unfinished", 1, "--beam", 2]
    common.append("--pseudo-targets")
    assert ended_well(start_command("generate", *common, tmp_path / "unbroken"))
    expected = files(tmp_path / "unbroken")
    for n_flushes in (0, 3, 30, 9, 1):
        killed = start_command(
            *["generate", *common, tmp_path / "store"],
            prepare=DiesWhileWriting(n_flushes),
        )
        assert not ended_well(killed)
    moments = random.Random(1)
    while not (tmp_path / "store" / "best").exists():
        shards = [["--num-shards", 2, "--shard-id", rank] for rank in range(2)]
        running = [start_command("generate", *common, tmp_path / "store", *s) for s in shards]
        if moments.random() < 0.5:
            running[moments.randrange(2)].join(moments.uniform(1, 3))
            running[moments.randrange(2)].kill()
        for child in running:
            child.join()
    assert ended_well(start_command("generate", *common, tmp_path / "store"))
    assert files(tmp_path / "store") == expected


class DiesWhileWriting:
    """`dies_while_writing` after so many flushes."""

    def __init__(self, n_flushes):
        self.n_flushes = n_flushes

    def __call__(self):
        dies_while_writing(self.n_flushes)


def test_prefixes_and_suffix_reach_the_model(run, by, source, outside, monkeypatch, tmp_path):
    """A word that the text has, as if it were a language token."""
    seen = []
    translate = ctranslate2.Translator.translate_batch

    class Noting(ctranslate2.Translator):
        def translate_batch(self, sources, **options):
            seen.append((sources, options["target_prefix"]))
            return translate(self, sources, **options)

    monkeypatch.setattr(ctranslate2, "Translator", Noting)
    vocabulary = json.loads((outside / "ct2" / "source_vocabulary.json").read_text())
    first, last = [token for token in vocabulary if len(token) > 3][-2:]
    target = json.loads((outside / "ct2" / "target_vocabulary.json").read_text())[-1]
    more = ["--teacher-source-prefix", f"{first} {last}", "--teacher-source-suffix", last]
    run(*by, *source, *more, "--teacher-target-prefix", target, "--beam", 2)
    sources, prefixes = seen[-1]
    assert all(one[:2] == [first, last] and one[-1] == last for one in sources)
    assert prefixes == [[target]] * len(sources)
    engine = read_json(tmp_path / "store" / "manifest.json")["engine"]
    assert engine["source_prefix"] == [first, last] and engine["source_suffix"] == [last]
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(outside / "spm.model"))
    plain = ctranslate2.Translator(str(outside / "ct2"))
    source_lines = StoredLines(str(tmp_path / "store" / "source-text"))
    cut = [first, last, *pieces.encode(source_lines[0], out_type=str), last]
    (result,) = plain.translate_batch(
        [cut], target_prefix=[[target]], beam_size=2, return_end_token=True
    )
    first, *pieces_of_best = result.hypotheses[0]
    assert first == target  # which the store leaves out
    (tokens, _), *_ = all_nbest(tmp_path / "store")[0].hypotheses
    words = pieces.decode(pieces_of_best[:-1]).split()
    assert pieces_of_best[-1] == "</s>" and len(tokens) == len(words) + 1
    message = run(*by, "--beam", 2, fails=True)
    assert "engine.source_prefix: found" in message and "expected []" in message


@pytest.fixture
def elsewhere(outside, tmp_path):
    """A copy of the converted teacher."""
    return shutil.copytree(outside / "ct2", tmp_path / "ct2")


class TestRefuses:
    def test_another_number_of_lines(self, run, by, text, tmp_path):
        lines = (text / "train.src").read_text().splitlines()
        (tmp_path / "short").write_text("\n".join(lines[:70] + lines[71:]) + "\n")
        message = run(*by, "--source-text", tmp_path / "short", fails=True)
        assert "short' has 159 lines, expected 160: one for each sentence of 'train'" in message
        assert "They probably part near line" in message
        assert not (tmp_path / "store" / "source-text").exists()

    def test_other_source_text(self, run, by, source, text, tmp_path):
        run(*by, *source, "--beam", 2)
        before = files(tmp_path / "store")
        lines = (text / "train.src").read_text().splitlines()
        (tmp_path / "other").write_text("\n".join(reversed(lines)) + "\n")
        message = run(*by, "--source-text", tmp_path / "other", "--beam", 2, fails=True)
        assert "was made from other text than" in message
        assert files(tmp_path / "store") == before

    def test_another_teacher(self, run, by, source, outside, elsewhere, tmp_path):
        run(*by, *source, "--beam", 2)
        with open(elsewhere / "model.bin", "ab") as file:
            file.write(b"\0")
        other = [*by[:2], "--teacher-ct2", elsewhere, *by[4:], "--beam", 2]
        assert "teacher: found" in run(*other, fails=True)
        fairseq_teacher = ["--teacher-path", outside / "teacher.pt", "--engine", "fairseq"]
        assert "engine.name: found ctranslate2-text, expected fairseq" in run(
            *fairseq_teacher, fails=True
        )

    def test_a_store_of_a_fairseq_teacher(self, run, by, source, teacher, tmp_path):
        run("--teacher-path", teacher, "--engine", "fairseq", "--beam", 2)
        before = files(tmp_path / "store")
        assert "was made without source text" in run(*by, *source, fails=True)
        assert files(tmp_path / "store") == before

    def test_subwords_that_the_teacher_does_not_know(
        self, run, source, outside, text, tmp_path
    ):
        (tmp_path / "other").write_text("QWERTY ZUIOP ÄÖÜ\n" * 50)
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / "other"),
            model_prefix=str(tmp_path / "other"),
            vocab_size=25,
            model_type="bpe",
            minloglevel=2,
        )
        flags = ["--teacher-ct2", outside / "ct2", "--teacher-spm", tmp_path / "other.model"]
        message = run(*flags, *source, fails=True)
        assert "of the text's subwords, such as" in message
        assert "are not in the source vocabulary of" in message
        assert not (tmp_path / "store" / "manifest.json").exists()

    def test_translations_that_the_student_does_not_know(self, run, by, source, outside):
        wrong = ["--spm-model", outside / "spm.model"]  # the student has whole words
        message = run(*by[2:], *source, *wrong, fails=True)
        assert "of the subwords of some translations are unknown to the student" in message
        assert "(--spm-model or --bpe, --tokenizer)? --accept-unknown" in message

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["{by}"], "--teacher-ct2 needs text: --text FILE, or --source-text FILE"),
            (["--source-text", "{text}"], "--source-text needs --teacher-ct2 FOLDER"),
            (["--teacher-spm", "{spm}"], "--teacher-spm needs --teacher-ct2 FOLDER"),
            (["{by}", "--text", "{text}", "--source-text", "{text}"], "expected new text, or"),
            (["{by}", "--teacher-path", "x.pt"], "--teacher-ct2 and --teacher-path: expected"),
            (["--teacher-ct2", "{ct2}"], "--teacher-ct2 needs --teacher-spm SOURCE.model"),
            (["{by}", "{spm}", "{spm}"], "--teacher-ct2 needs --teacher-spm SOURCE.model"),
            (
                ["{by}", "--teacher-max-positions", "1"],
                "--teacher-max-positions is 1",
            ),
            (
                ["--teacher-ct2", "{text}", "--teacher-spm", "{spm}"],
                "has no model.bin",
            ),
            (
                ["--teacher-ct2", "{ct2}", "--teacher-spm", "{spm}x"],
                "--teacher-spm: there",
            ),
            (
                ["{by}", "--teacher-target-prefix", "deu_Latn"],
                "--teacher-target-prefix: 'deu_Latn' is not in the target vocabulary of",
            ),
            (["{by}", "--engine", "fairseq"], "--engine fairseq with --teacher-ct2"),
            (["{by}", "--exclude", "{text}"], "--exclude needs --text FILE"),
            (["{by}", "--source-text", "{text}", "--sampling"], "sampling needs the fairseq"),
        ],
    )
    def test_flags(self, run, by, outside, text, arguments, message, tmp_path):
        paths = {"text": text / "train.src", "ct2": outside / "ct2"}
        paths["spm"] = outside / "spm.model"
        words = []
        for argument in arguments:
            words += by if argument == "{by}" else [argument.format(**paths)]
        assert message in run(*words, fails=True)
        assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_source_end_that_is_there_twice_or_never(elsewhere, outside, caplog):
    from fairseq_seqkd.decoding.external_model import ExternalModel

    spm = str(outside / "spm.model")
    ExternalModel(str(elsewhere), spm).check_source_end()
    assert caplog.text == ""
    ExternalModel(str(elsewhere), spm, source_suffix=("</s>",)).check_source_end()
    assert "the source gets '</s>' twice" in caplog.text
    config = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**config, "add_source_eos": False}))
    ExternalModel(str(elsewhere), spm).check_source_end()
    assert "the source gets '</s>' at no place" in caplog.text


def test_lines_are_stored_as_they_are(tmp_path):
    lines = ["", "a b", "é\u2028\r x", "", "ü" * 999, ""]
    with storing_lines(str(tmp_path)) as add:
        for line in lines:
            add(line)
    stored = StoredLines(str(tmp_path))
    assert [stored[np.int64(i)] for i in range(len(stored))] == lines
    assert (tmp_path / "lines.bin").read_bytes().decode() == "".join(x + "\n" for x in lines)


def test_a_real_teacher_with_a_student_of_other_subwords(tmp_path, capsys, monkeypatch):
    """Multi30k's teacher, converted; the student has 500 subwords of its own."""
    if not SHARED.exists():
        pytest.skip("Multi30k is not here")
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 64)
    pairs = {}
    for lang in ("de", "en"):
        with gzip.open(SHARED / f"train.{lang}.gz", "rt", encoding="utf-8", newline="\n") as f:
            pairs[lang] = [next(f).rstrip("\n") for _ in range(150)]
        (tmp_path / f"raw.{lang}").write_text("".join(line + "\n" for line in pairs[lang]))
    sentencepiece.SentencePieceTrainer.train(
        input=[str(tmp_path / "raw.de"), str(tmp_path / "raw.en")],
        model_prefix=str(tmp_path / "student"),
        vocab_size=500,
        model_type="bpe",
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "student.model"))
    for lang, lines in pairs.items():
        cut = [" ".join(pieces.encode(line, out_type=str)) + "\n" for line in lines]
        (tmp_path / f"train.{lang}").write_text("".join(cut))
    pair = ["--source-lang", "de", "--target-lang", "en", "--joined-dictionary"]
    prefixes = ["--trainpref", tmp_path / "train", "--validpref", tmp_path / "train"]
    fairseq("preprocess", *pair, *prefixes, "--destdir", tmp_path / "DATA")
    shutil.copy(SHARED / "teacher.pt", tmp_path)
    for lang in ("de", "en"):
        shutil.copy(SHARED / "dict.txt", tmp_path / f"dict.{lang}.txt")
    words = ["export", tmp_path / "teacher.pt", "--to", "ctranslate2", "--no-check"]
    main([*map(str, [*words, "--out", tmp_path / "ct2"])])
    main(
        [
            *["generate", str(tmp_path / "DATA"), "--teacher-ct2", str(tmp_path / "ct2")],
            *["--teacher-spm", str(SHARED / "spm.model"), "--beam", "2", "--threads", "1"],
            *["--source-text", str(tmp_path / "raw.de")],
            *["--spm-model", str(tmp_path / "student.model"), "--pseudo-targets"],
            str(tmp_path / "store"),
        ]
    )
    assert "150 sentences translated by the teacher" in capsys.readouterr().out
    lists = all_nbest(tmp_path / "store")
    dictionary = load_dictionary(tmp_path / "DATA" / "dict.en.txt")
    texts = [dictionary.string(lists[i].hypotheses[0][0], "sentencepiece") for i in range(150)]
    import sacrebleu

    # Training sentences of the teacher: it knows them nearly by heart.
    assert sacrebleu.corpus_bleu(texts, [pairs["en"]]).score > 40


def load_dictionary(path):
    from fairseq.data import Dictionary

    return Dictionary.load(str(path))
