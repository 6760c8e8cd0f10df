"""``generate --text``: plain text in, a store out."""

import gzip
import io
import os
import shutil
from pathlib import Path

import pytest
from advice import errors_of, unknown_flags
from conftest import TINY, TRAINING, all_nbest, files, load_split
from processes import fairseq

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json, sha256
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.subwords import Subwords

SHARED = Path(__file__).resolve().parents[3] / "shared" / "multi30k"


@pytest.fixture
def run(data, teacher, tmp_path, capsys):
    """Run ``generate`` or another subcommand; returns its output, or its error message."""

    def call(*arguments, name="generate", fails=False, root=tmp_path / "store", folder=data):
        words = [name, folder, "--pseudo-targets", root, "--threads", 1, *arguments]
        if name == "generate":
            words += ["--teacher-path", teacher, "--beam", 3, "--engine", "fairseq"]
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


@pytest.fixture
def lines(text):
    """Different lines, none empty, one of them too long for the teacher."""
    lines = [*(text / "train.src").read_text().splitlines(), "nosuch word"]
    return [*dict.fromkeys(line for line in lines if line)]


@pytest.fixture
def mono(lines, text, tmp_path):
    """A file of those lines, with duplicates, empty lines, and lines of the test set."""
    test = (text / "test.src").read_text().splitlines()
    assert not set(test) & set(lines)
    messy = [*lines[:9], "", test[0], f" {lines[3]} ", *lines[9:], "  ", test[5], lines[-1]]
    path = tmp_path / "mono.src"
    path.write_text("".join(line + "\n" for line in messy))
    return path


@pytest.fixture
def flags(mono, text):
    return ["--text", mono, "--exclude", text / "test.src"]


@pytest.fixture
def expected(run, data, lines, tmp_path):
    """The files of the store that fairseq-preprocess and generate make of the lines."""
    (tmp_path / "clean.src").write_text("".join(line + "\n" for line in lines))
    folder = tmp_path / "preprocessed"
    pair = ["--source-lang", "src", "--target-lang", "tgt", "--destdir", folder]
    dictionary = ["--srcdict", data / "dict.src.txt", "--trainpref", tmp_path / "clean"]
    fairseq("preprocess", "--only-source", *pair, *dictionary)
    for path in data.iterdir():
        if path.name.startswith(("valid.", "test.", "dict.tgt")):
            shutil.copy(path, folder)
    (folder / "preprocess.log").unlink()
    run(root=tmp_path / "expected", folder=folder)
    return files(tmp_path / "expected")


def store_of(folder):
    """The files of a store but for its text."""
    return {name: digest for name, digest in files(folder).items() if "text/" not in name}


def test_the_store_is_that_of_fairseq_preprocess(run, flags, expected, lines, tmp_path):
    output = run(*flags)
    assert store_of(tmp_path / "store") == expected
    assert f"{tmp_path / 'store' / 'text'}: {len(lines)} lines to translate" in output
    for reason in ("2 lines are left out: duplicate", "2 lines are left out: excluded"):
        assert reason in output
    assert "2 lines are left out: empty" in output
    assert "2 subwords (0." in output and "%) are unknown" in output
    assert "1 sentences are dropped: source too long" in output
    assert f"fairseq-train {tmp_path / 'store' / 'best'} --task translation ..." in output
    assert not list((tmp_path / "store").glob(".*"))


def test_stock_fairseq_trains_on_it(run, flags, data, tmp_path):
    run(*flags)
    task = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "2"]
    best = tmp_path / "store" / "best"
    log = fairseq("train", best, *TRAINING, *TINY, *task, "--save-dir", tmp_path / "run")
    assert "fairseq_seqkd" not in log and "best valid src-tgt 24 examples" in log
    for name in ("valid.src-tgt.src.bin", "valid.src-tgt.tgt.bin", "test.src-tgt.src.bin"):
        assert sha256(best / name) == sha256(data / name)


@pytest.mark.parametrize("kind", ["gzip", "several", "pipe", "standard input"])
def test_files_of_other_kinds_give_the_same_store(
    run, flags, expected, mono, tmp_path, kind, monkeypatch
):
    content, path = mono.read_bytes(), tmp_path / "text"
    names = [path]
    if kind == "gzip":
        path.write_bytes(gzip.compress(content))
    elif kind == "several":
        head, tail = content[: content.index(b"\n") + 1], content[content.index(b"\n") + 1 :]
        path.write_bytes(head)
        (tmp_path / "more").write_bytes(gzip.compress(tail))
        names = [path, tmp_path / "more"]
    elif kind == "pipe":
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        names = [f"/dev/fd/{reading}"]
    else:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        names = ["-"]
    run("--text", *names, *flags[2:])
    assert store_of(tmp_path / "store") == expected


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 16 sentences, in stores of fixtures that are asked for later as well."""
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 16)


def test_it_goes_on_with_and_without_the_text(small_chunks, run, flags, mono, tmp_path):
    run(*flags)
    complete = files(tmp_path / "store")
    for more in (flags, []):
        for chunk in list((tmp_path / "store" / "nbest").glob("chunk-0000*"))[:3]:
            chunk.unlink()
        shutil.rmtree(tmp_path / "store" / "best")
        run(*more)
        assert files(tmp_path / "store") == complete
    mono.unlink()
    assert "lines to translate" in run()
    assert "mbr: " in run("--select", "mbr", name="merge")
    filters = ["--filter-copies", "--filter-length-ratio", 1.2, "--databin", "filtered"]
    output = run(*filters, name="merge")
    assert "filtered: " in output and "sentences are dropped: filter length_ratio" in output


def test_shards_by_hand(small_chunks, run, flags, expected, tmp_path):
    for rank in (2, 0, 1):
        output = run(*flags, "--num-shards", 3, "--shard-id", rank)
    assert "sentences translated by the teacher" in output
    assert store_of(tmp_path / "store") == expected
    assert len(all_nbest(tmp_path / "store")) == len(load_split_of_text(tmp_path).dataset)


def load_split_of_text(tmp_path):
    return load_split(tmp_path / "store" / "text" / "data-bin")


def test_overwrite_reads_the_text_again(run, flags, mono, lines, tmp_path):
    run(*flags)
    mono.write_text("".join(line + "\n" for line in lines[:30]))
    run(*flags, "--overwrite")
    assert len(load_split_of_text(tmp_path).dataset) == 30
    run("--overwrite")  # no text: the split of DATA
    assert len(all_nbest(tmp_path / "store")) == 160
    assert not (tmp_path / "store" / "text").exists()


class TestRefuses:
    @pytest.fixture
    def made(self, run, flags):
        run(*flags)

    def test_other_text_and_other_flags(self, run, made, mono, flags, text, tmp_path):
        before = files(tmp_path / "store")
        (tmp_path / "other").write_text("another line\n")
        message = run("--text", tmp_path / "other", *flags[2:], fails=True)
        assert "was made from other text or data, or with other flags:" in message
        assert "files: found" in message and "excluded" not in message
        assert "excluded: found" in run("--text", mono, fails=True)
        message = run(*flags, "--tokenizer", "space", fails=True)
        assert "subwords.tokenizer: found none, expected space" in message
        assert "'train': leave --split out" in run("--split", "valid", fails=True)
        assert files(tmp_path / "store") == before

    def test_other_dictionaries(self, run, made, data, tmp_path):
        other = shutil.copytree(data, tmp_path / "other")
        with open(other / "dict.tgt.txt", "a") as file:
            file.write("more 1\n")
        assert "dictionaries.dict.tgt.txt: found" in run(folder=other, fails=True)

    def test_a_store_of_a_split(self, run, flags, tmp_path):
        run()
        before = files(tmp_path / "store")
        assert "was made from a split of a data-bin" in run(*flags, fails=True)
        assert files(tmp_path / "store") == before

    def test_unknown_symbols(self, run, tmp_path):
        (tmp_path / "russian").write_text("привет мир\n" * 3 + "это текст\n")
        message = run("--text", tmp_path / "russian", fails=True)
        assert "100.0 % of its 4 subwords are unknown, such as 'привет'; expected at" in message
        assert "most 10 %" in message and "--accept-unknown 1.0" in message
        assert not (tmp_path / "store" / "text").exists()
        assert not list((tmp_path / "store").glob(".*"))
        run("--text", tmp_path / "russian", "--accept-unknown", 1)
        assert read_json(tmp_path / "store" / "text" / "text.json")["symbols"]["unknown"] == 4

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--text", "{mono}", "{mono}x"], "no file '{mono}x'"),
            (["--text", "-", "-"], "'-' twice: standard input can be read once"),
            (["--text", "{empty}"], "no line is left to translate (0 duplicate, 0 excluded, 2"),
            (["--text", "{mono}", "--exclude", "{mono}"], "no line is left to translate"),
            (["--exclude", "{mono}"], "--exclude needs --text FILE"),
            (["--bpe", "sentencepiece"], "--bpe needs --text FILE"),
            (
                ["--text", "{mono}", "--accept-unknown", "2"],
                "--accept-unknown is 2.0, expected",
            ),
            (["--text", "{mono}", "--bpe", "subword_nmt"], "needs its model: --bpe-codes FILE"),
            (["--text", "{mono}", "--bpe-codes", "{mono}"], "--bpe-codes with --bpe None"),
            (
                ["--text", "{mono}", "--spm-model", "{mono}", "--bpe-codes", "{mono}"],
                "--bpe-codes: expected --bpe sentencepiece with",
            ),
            (["--text", "{mono}", "--spm-model", "{mono}x"], "--spm-model: there is no file"),
            (["--text", "{mono}", "--spm-model", "{mono}"], "is not a sentencepiece model"),
            (
                [
                    "--text",
                    "{mono}",
                    "--bpe",
                    "sentencepiece",
                    "--sentencepiece-model",
                    "{mono}",
                ],
                "--sentencepiece-model: '{mono}' is not a sentencepiece model",
            ),
            (["--text", "{latin}"], "latin:2: not UTF-8"),
        ],
    )
    def test_flags(self, run, mono, tmp_path, arguments, message):
        (tmp_path / "empty").write_text("\n \n")
        (tmp_path / "latin").write_bytes("a\nü\n".encode("latin-1"))
        paths = {name: str(tmp_path / name) for name in ("empty", "latin")}
        paths["mono"] = str(mono)
        arguments = [argument.format(**paths) for argument in arguments]
        assert message.format(**paths) in run(*arguments, fails=True)
        assert not (tmp_path / "store" / "text").exists()

    def test_several_data_bins(self, run, data, mono, tmp_path):
        both, roots = f"{data}:{data}", f"{tmp_path / 'a'}:{tmp_path / 'b'}"
        message = run("--text", mono, folder=both, root=roots, fails=True)
        assert "expected one data-bin here, found 2" in message


class TestSubwords:
    def test_sentencepiece_cuts_as_fairseq_does(self, tmp_path):
        sentencepiece = pytest.importorskip("sentencepiece")
        (tmp_path / "corpus").write_text("a dog runs\ntwo dogs run\n" * 20)
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / "corpus"),
            model_prefix=str(tmp_path / "m"),
            vocab_size=20,
            model_type="bpe",
        )
        model = str(tmp_path / "m.model")
        pieces = sentencepiece.SentencePieceProcessor(model_file=model)
        cut = Subwords("sentencepiece", model).cut_in("en")
        assert cut("two dogs  run.") == pieces.encode("two dogs  run.", out_type=str)

    def test_moses_and_subword_nmt_as_in_fairseq_interactive(self, tmp_path):
        pytest.importorskip("sacremoses")
        learn_bpe = pytest.importorskip("subword_nmt.learn_bpe")
        with open(tmp_path / "codes", "w") as file:
            learn_bpe.learn_bpe(["the dogs don't run ."] * 9, file, 10)
        subwords = Subwords("subword_nmt", str(tmp_path / "codes"), "moses", "--bpe-codes")
        cut = subwords.cut_in("en")("The dogs don't!")
        assert cut == "T@@ h@@ e dogs do@@ n &@@ a@@ p@@ o@@ s@@ ;@@ t !".split()

    def test_codes_that_are_none(self, tmp_path):
        pytest.importorskip("subword_nmt")
        (tmp_path / "codes").write_text("one word too many\n")
        subwords = Subwords("subword_nmt", str(tmp_path / "codes"), flag="--bpe-codes")
        with pytest.raises(ValueError, match="--bpe-codes: .*codes' cannot be read by subword"):
            subwords.cut_in("en")

    def test_moses_alone(self):
        pytest.importorskip("sacremoses")
        cut = Subwords(tokenizer="moses").cut_in("en")
        assert cut("Dogs run, don't they?") == "Dogs run , don &apos;t they ?".split()


@pytest.fixture(scope="module")
def multi30k(tmp_path_factory):
    """A folder with a data-bin for the teacher, and captions that have no translations."""
    if not SHARED.exists():
        pytest.skip("Multi30k is not here")
    sentencepiece = pytest.importorskip("sentencepiece")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(SHARED / "spm.model"))
    folder = tmp_path_factory.mktemp("multi30k")

    def write_cut(name, lines):
        cut = "".join(" ".join(pieces.encode(line, out_type=str)) + "\n" for line in lines)
        (folder / name).write_text(cut, encoding="utf-8")

    for lang in ("de", "en"):
        write_cut(f"valid.{lang}", lines_of(f"val.{lang}.gz")[:50])
    captions = [line for i in (1, 2) for line in lines_of(f"task2/train.{i}.de.gz")[:150]]
    test = lines_of("test_2016_flickr.de.gz")[:200]
    kept = [line for line in dict.fromkeys(captions) if line.strip() and line not in test]
    write_cut("clean.de", kept)
    messy = "".join(line + "\n" for line in [*captions, *test[:9], *captions[:20]])
    (folder / "captions.de.gz").write_bytes(gzip.compress(messy.encode()))
    pair = ["--source-lang", "de", "--target-lang", "en", "--srcdict", SHARED / "dict.txt"]
    valid = ["--joined-dictionary", "--validpref", folder / "valid"]
    fairseq("preprocess", *pair, *valid, "--destdir", folder / "DATA")
    train = ["--only-source", "--trainpref", folder / "clean"]
    fairseq("preprocess", *pair, *train, "--destdir", folder / "preprocessed")
    for path in (folder / "DATA").iterdir():
        if path.name.startswith(("valid.", "dict.en")):
            shutil.copy(path, folder / "preprocessed")
    return folder


def lines_of(name):
    with gzip.open(SHARED / name, "rt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def test_captions_of_multi30k(multi30k, tmp_path, capsys):
    pytest.importorskip("ctranslate2")
    by = ["--teacher-path", SHARED / "teacher.pt", "--teacher-data", multi30k / "DATA"]
    by += ["--beam", 1, "--threads", 1, "--no-check"]
    text = ["--text", multi30k / "captions.de.gz", "--spm-model", SHARED / "spm.model"]
    text += ["--exclude", SHARED / "test_2016_flickr.de.gz"]
    flags = ["-s", "de", "-t", "en", "--pseudo-targets"]
    for folder, root, more in (("DATA", "store", text), ("preprocessed", "expected", [])):
        main([*map(str, ["generate", multi30k / folder, *by, *flags, tmp_path / root, *more])])
    expected = files(tmp_path / "expected")
    expected.pop("best/preprocess.log")
    assert store_of(tmp_path / "store") == expected
    assert "lines are left out: excluded" in capsys.readouterr().out
