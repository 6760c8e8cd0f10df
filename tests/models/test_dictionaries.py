"""Dictionaries with ``#fairseq:overwrite``: what fairseq loads, all commands take."""

import re
import shutil

import pytest
from conftest import CTRANSLATE2, all_nbest, load_split, preprocess, tokens_of, train
from fairseq.data import Dictionary
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import fairseq

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.models.dictionaries import save_dictionary, save_unique, unique_symbols

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "a#4", "a#5", "c#"]


def dictionary_of(symbols):
    """The dictionary that fairseq makes of such a file, which repeats symbols."""
    dictionary = Dictionary()
    for count, symbol in enumerate(symbols):
        dictionary.add_symbol(symbol, n=count, overwrite=True)
    return dictionary


@given(st.lists(st.sampled_from(SYMBOLS), max_size=20))
@settings(deadline=None)
def test_a_saved_dictionary_is_loaded_as_it_was(tmp_path_factory, symbols):
    path = str(tmp_path_factory.mktemp("saved") / "dict.txt")
    dictionary = dictionary_of(symbols)
    save_dictionary(dictionary, path)
    loaded = Dictionary.load(path)
    assert (loaded.symbols, loaded.count[4:]) == (dictionary.symbols, dictionary.count[4:])
    assert loaded.indices == dictionary.indices


@given(st.lists(st.sampled_from(SYMBOLS), max_size=20))
@settings(deadline=None)
def test_unique_symbols_differ_and_keep_what_text_becomes(tmp_path_factory, symbols):
    path = str(tmp_path_factory.mktemp("unique") / "dict.txt")
    dictionary = dictionary_of(symbols)
    names = unique_symbols(dictionary)
    assert len(set(names)) == len(names) == len(dictionary)
    assert names[:4] == dictionary.symbols[:4]
    for symbol in set(symbols) - set(names[:4]):
        assert names[dictionary.index(symbol)] == symbol
    save_unique(dictionary, path)
    assert Dictionary.load(path).symbols == names


@pytest.fixture(scope="module")
def repeated(text, data, tmp_path_factory):
    """A data-bin whose dictionaries begin with special symbols, and repeat a word."""
    folder = tmp_path_factory.mktemp("repeated")
    flags = []
    for side, flag in (("src", "--srcdict"), ("tgt", "--tgtdict")):
        lines = (data / f"dict.{side}.txt").read_text().splitlines()
        overwrites = ["<unk> 100 #fairseq:overwrite", "</s> 5 #fairseq:overwrite"]
        again = f"{lines[0]} #fairseq:overwrite"
        path = folder / f"dict.{side}.txt"
        path.write_text("\n".join([*overwrites, *lines[:9], again, *lines[9:]]) + "\n")
        flags += [flag, path]
    databin = preprocess(text, folder / "data-bin", *flags)
    for side in ("src", "tgt"):  # fairseq-preprocess loses the flags when it copies them
        shutil.copy(folder / f"dict.{side}.txt", databin)
    return databin


@pytest.fixture(scope="module")
def trained(repeated, tmp_path_factory):
    """The checkpoint of a teacher that was trained on that data-bin."""
    folder = tmp_path_factory.mktemp("trained")
    limits = ["--max-source-positions", "80", "--max-target-positions", "80"]
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--lr", "0.02"]
    train(repeated, folder / "teacher", *loss, *limits, "--max-update", "40")
    return folder / "teacher" / "checkpoint_last.pt"


def run(*words):
    main([*map(str, words)])


def test_the_repeated_word_has_its_last_index(repeated):
    dictionary = load_split(repeated).dataset.tgt_dict
    word = dictionary.symbols[6]
    assert dictionary.symbols.count(word) == 2 and dictionary.index(word) == 15
    assert any(15 in tokens for tokens in load_split(repeated).dataset.tgt)


@CTRANSLATE2
def test_both_engines_translate_alike(repeated, trained, tmp_path):
    lists = []
    for engine in ("fairseq", "ctranslate2"):
        where = ["--pseudo-targets", tmp_path / engine, "--teacher-path", trained]
        flags = [*where, "--engine", engine, "--accept-unfinished", 1, "--threads", 1]
        run("generate", repeated, *flags)
        lists.append({i: tokens_of(one) for i, one in all_nbest(tmp_path / engine).items()})
    both = [i for i in lists[0] if lists[0][i] and lists[1][i]]
    assert len(both) > 100 and any(15 in lists[1][i][0] for i in both)
    equal = sum(lists[0][i][0] == lists[1][i][0] for i in both)
    assert equal >= 0.95 * len(both)  # two hypotheses may have the same score


def test_cached_trained_on_imported_and_inspected(repeated, trained, tmp_path, capsys):
    run("cache", repeated, "--teacher-path", trained, "--kd-cache", tmp_path / "cache")
    task = ["--task", "translation_seqkd", "--max-update", "2"]
    loss = ["--criterion", "word_kd", "--kd-cache", tmp_path / "cache"]
    train(repeated, tmp_path / "student", *task, *loss)
    split = load_split(repeated)
    text = [split.dataset.tgt_dict.string(tokens) for tokens in split.dataset.tgt]
    (tmp_path / "text").write_text("\n".join(text) + "\n")
    run("import", repeated, tmp_path / "text", "--pseudo-targets", tmp_path / "imported")
    found = load_split(tmp_path / "imported" / "best").dataset.tgt
    assert found[20].tolist() == split.dataset.tgt[20].tolist()
    evaluated = ["--checkpoints", trained, "--rounds", 1, "--beams", 1]
    run("evaluate", repeated, *evaluated)
    run("doctor", trained)
    assert "trouble" not in capsys.readouterr().out


@CTRANSLATE2
def test_exported_in_every_form(repeated, trained, text, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2")
    run("export", trained, "--to", "fairseq", "--out", tmp_path / "stock.pt")
    run("export", trained, "--to", "sparse", "--out", tmp_path / "sparse.safetensors")
    run("export", trained, "--to", "ctranslate2", "--out", tmp_path / "ct2", "--data", repeated)
    for side in ("src", "tgt"):
        assert Dictionary.load(str(tmp_path / "ct2" / f"dict.{side}.txt")).symbols == (
            Dictionary.load(str(repeated / f"dict.{side}.txt")).symbols
        )
    output = fairseq(
        *["generate", repeated, "--path", tmp_path / "stock.pt", "--cpu", "--beam", 1],
        *["--required-batch-size-multiple", 1],
    )
    expected = {
        int(id_): line
        for id_, line in re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)
    }
    sources = [line.split() for line in (text / "test.src").read_text().splitlines()]
    translator = ctranslate2.Translator(str(tmp_path / "ct2"))
    found = translator.translate_batch(sources, beam_size=1, max_decoding_length=79)
    equal = sum(" ".join(one.hypotheses[0]) == expected[i] for i, one in enumerate(found))
    assert equal >= 18
