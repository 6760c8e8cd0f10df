"""N-best lists of Marian and Moses, parsed and imported."""

import math

import pytest
from conftest import all_nbest

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.importing import Translations, import_store
from fairseq_seqkd.pseudo.nbest_lists import parse_item

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


@pytest.mark.parametrize(
    "line, expected",
    [
        ("0 ||| a b ||| F0= -1.5 ||| -0.5", (0, -0.5, "a b")),  # Marian
        ("3 ||| a ||| WordScores= -0.1 -0.2 ||| F0= -1.5 F1= 2 ||| -0.5", (3, -0.5, "a")),
        ("3 ||| a b ||| 0-0 1-1 ||| F0= -1.5 ||| -0.5", (3, -0.5, "a b")),
        ("3 ||| a b ||| 0.1,0.9 0.8,0.2 ||| F0= -1.5 ||| -0.5", (3, -0.5, "a b")),
        ("7 ||| a  ||| LM0= -9.1 WordPenalty0= -2 ||| -4.25", (7, -4.25, "a")),  # Moses
        ("7 ||| a  ||| d: 0 -2.1 lm: -9 w: -2 ||| -4.25", None),  # refused, not misread
        ("7 ||| a b ||| LM0= -9.1 ||| -4 ||| 0-0 1-1", (7, -4, "a b")),
        ("7 ||| a b ||| LM0= -9.1 ||| -4 ||| |0-1|", (7, -4, "a b")),
        ("12 ||| a ||| -4e-3", (12, -0.004, "a")),
        ("1 |||  ||| F0= 0 ||| -0.1", (1, -0.1, "")),
        ("1 ||| a ||| F0= -inf ||| -inf", (1, -math.inf, "a")),
        ("1 ||| a ||| F0= nan ||| nan", (1, -math.inf, "a")),
        ("1 ||| a|||b ||| F0= -1 ||| -1", (1, -1, "a|||b")),
        ("1 ||| a\x85\u2028\r ||| F0= -1 ||| -1", (1, -1, "a\x85\u2028\r")),
        ("1 ||| a ||| b ||| F0= -1 ||| -1", None),
        ("1 ||| a", None),
        ("1 ||| a ||| F0= -1", None),
        ("x ||| a ||| F0= -1 ||| -1", None),
        ("1 a b -1", None),
        ("", None),
    ],
)
def test_lines(line, expected):
    assert parse_item(line) == expected


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    number=st.integers(0, 10**9),
    words=st.lists(st.text("abc|\u00e9\u2028=-1", min_size=1).filter(lambda w: w != "|||")),
    features=st.lists(st.floats(-1e3, 1e3)),
    score=st.floats(-1e3, 1e3),
)
def test_what_marian_prints_is_read(number, words, features, score):
    named = " ".join(f"F{i}= {value}" for i, value in enumerate(features))
    text = " ".join(words)
    assert parse_item(f"{number} ||| {text} ||| {named} ||| {score}") == (
        *(number, score),
        text.strip(" "),
    )


def symbols_of(split, *ids):
    return " ".join(split.dataset.tgt_dict.symbols[4 + id_] for id_ in ids)


def lists(split, sentences):
    """Lines of three hypotheses for each sentence, the best one last."""
    return [
        f"{i} ||| {symbols_of(split, i, rank)} ||| F0= -2 ||| {-3 + rank}"
        for i in sentences
        for rank in range(3)
    ]


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def check(split, nbest, i):
    assert [split.dataset.tgt_dict.string(tokens) for tokens, _ in nbest[i].hypotheses] == [
        symbols_of(split, i, rank) for rank in (2, 1, 0)
    ]
    assert [score for _, score in nbest[i].hypotheses] == [-1, -2, -3]


def test_scores_and_order(split, tmp_path):
    """The total score is stored as it is, and orders a sentence's hypotheses."""
    path = write(tmp_path / "list", lists(split, reversed(range(160))))
    store = import_store(str(tmp_path / "store"), split, Translations([path]))
    nbest = all_nbest(store.root)
    for i in range(160):
        check(split, nbest, i)
    assert store.manifest["import"]["format"] == "n-best list"
    assert store.manifest["search"] == {"nbest": 3}


def test_two_lists_of_some_sentences(split, tmp_path, caplog):
    paths = [
        write(tmp_path / "1", lists(split, range(0, 150, 2))),
        write(tmp_path / "2", lists(split, range(1, 150, 2))),
    ]
    nbest = all_nbest(import_store(str(tmp_path / "s"), split, Translations(paths)).root)
    check(split, nbest, 148)
    check(split, nbest, 149)
    assert nbest[150].status == "not in the import"
    assert "of 150 of the 160 sentences; the first without is sentence 150" in caplog.text


def test_import_and_select_closest(data, split, tmp_path, capsys):
    """By the command, with filters on the scores; the summary does not call them normalised."""
    path = write(tmp_path / "list", lists(split, range(160)))
    store = tmp_path / "store"
    cli.main(["import", str(data), path, "--pseudo-targets", str(store), "--threads", "1"])
    assert "mean score -1.000 as in the imported list" in capsys.readouterr().out
    merge = ["merge", str(data), "--pseudo-targets", str(store), "--threads", "1"]
    cli.main([*merge, "--select", "closest", "--filter-score-percentile", "5"])
    report = read_json(store / "closest" / "target_spec.json")
    assert report["sentences"]["teacher"] > 100


@pytest.mark.parametrize(
    "lines, message",
    [
        (["0 ||| a ||| F0= -1 ||| -1"] * 2 + ["1 ||| a ||| -1", "0 ||| b ||| -1"],
         "list:4: sentence 0 again, which has hypotheses further up"),
        (["0 ||| a ||| F0= -1 ||| -1", "0 ||| a ||| F0= -1"], r"list:2: found '0 \|\|\| a"),
        (["0 ||| a ||| F0= -1 ||| -1", "some text"], "list:2: found 'some text'.*--format"),
        (["160 ||| a ||| F0= -1 ||| -1"], "list:1: sentence 160, but 'train' .* has 160"),
    ],
)  # fmt: skip
def test_refuses(split, tmp_path, lines, message):
    path = write(tmp_path / "list", lines)
    with pytest.raises(ValueError, match=message):
        import_store(str(tmp_path / "store"), split, Translations([path]))
    assert not (tmp_path / "store").exists()


def test_refuses_a_sentence_of_two_files(split, tmp_path):
    paths = [write(tmp_path / name, lists(split, range(80))) for name in "ab"]
    with pytest.raises(ValueError, match="b:1: sentence 0 again.* counted from 0"):
        import_store(str(tmp_path / "store"), split, Translations(paths))


def test_bars_in_plain_text(split, tmp_path):
    """Plain text with such a line is read as plain text if that is asked for."""
    lines = ["0 ||| a ||| -1", *(symbols_of(split, i) for i in range(1, 160))]
    path = write(tmp_path / "text", lines)
    store = import_store(str(tmp_path / "s"), split, Translations([path], format="text"))
    tokens, _ = all_nbest(store.root)[159].hypotheses[0]
    assert split.dataset.tgt_dict.string(tokens) == symbols_of(split, 159)
