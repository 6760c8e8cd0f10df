"""The program in an exported folder: one line out for each line in, as soon as it is there."""

import io
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairseq_seqkd.cli.main import main

pytest.importorskip("ctranslate2")
from fairseq_seqkd.export import translate  # noqa: E402

LONGEST = 29  # tokens of a source: the teacher's 30 without EOS
BREAKS = "\r \x0b \x0c \x1c \x85 \u2028 \u2029".split(" ")


def export(teacher, data, folder, *flags):
    out = ["--to", "ctranslate2", "--out", folder, "--data", data, *flags]
    main(["export", *map(str, [teacher, *out])])
    return str(folder)


@pytest.fixture(scope="module")
def folders(teacher, data, text, tmp_path_factory):
    """Two exports: of subwords, and of text with a sentencepiece model with byte pieces."""
    root = tmp_path_factory.mktemp("exports")
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        input=text / "train.src",
        model_prefix=root / "spm",
        vocab_size=330,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
    )
    spm = ["--spm-model", root / "spm.model"]
    return [export(teacher, data, root / "a"), export(teacher, data, root / "b", *spm)]


def output_for(folder, content):
    """The bytes that the program prints for its whole input."""
    source, sink = os.pipe()
    output = io.BytesIO()

    def feed():
        with os.fdopen(sink, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        translate.main(folder, source, output)
    finally:
        os.close(source)
        thread.join()
    return output.getvalue()


def start(folder):
    program = [sys.executable, os.path.join(folder, "translate.py")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(program, **pipes)


words = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
lines = st.lists(st.sampled_from([*BREAKS, " ", ". ", ""]) | words, max_size=60).map("".join)
contents = st.lists(lines, max_size=8).map("\n".join).map(str.encode) | st.binary(max_size=80)


@given(contents)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_as_many_lines_out_as_in(folders, content):
    expected = content.count(b"\n") + (content[-1:] not in (b"", b"\n"))
    for folder in folders:
        found = output_for(folder, content)
        assert found.count(b"\n") == len(found.decode().splitlines()) == expected


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", [0]),
        (b"\n", [0]),
        (b"\n \n\t\n", [0, 0, 0]),
        (b"one\r\n\r\ntwo", [1, 0, 1]),
        ("\ufeffone\n\ufeff\n".encode(), [1, 0]),
        *((f"a{sign}b\n{sign}\n".encode(), [1, 0]) for sign in BREAKS),
    ],
)
def test_lines_and_which_are_empty(folders, content, expected):
    expected = expected if content else []
    for folder in folders:
        found = output_for(folder, content).decode()
        assert [int(bool(line)) for line in found.split("\n")[:-1]] == expected


def test_a_line_is_translated_alike_wherever_it_stands(folders, text):
    sources = (text / "test.src").read_bytes().splitlines(keepends=True)
    for folder in folders:
        together = output_for(folder, b"".join(sources)).splitlines()
        assert [output_for(folder, one).strip() for one in sources[:5]] == together[:5]


def test_a_person_gets_an_answer_to_each_line(folders, text):
    """The input stays open; the old program would wait for its end."""
    with start(folders[1]) as process:
        guard = threading.Timer(60, process.kill)  # a program that waits fails, and ends
        guard.start()
        for line in (text / "test.src").read_bytes().splitlines(keepends=True)[:3]:
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().strip()
        guard.cancel()
        assert process.communicate()[0] == b""
    assert process.returncode == 0


def test_a_pipe_gets_its_output_while_more_input_comes(folders, text):
    block = (text / "test.src").read_bytes() * 20
    with start(folders[0]) as process:
        guard = threading.Timer(120, process.kill)
        guard.start()
        for _ in range(3):
            process.stdin.write(block)
            process.stdin.flush()
            for _ in range(block.count(b"\n")):
                assert process.stdout.readline().endswith(b"\n")
        guard.cancel()
        process.communicate()


def test_a_reader_that_goes_away_is_no_traceback(folders, text):
    with start(folders[0]) as process:
        process.stdout.close()
        process.stdin.write((text / "test.src").read_bytes())
        process.stdin.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 1


class TestCut:
    @given(st.lists(st.sampled_from(["▁a", "b", ".", "▁c!", "。"]), max_size=200))
    def test_nothing_is_lost_and_nothing_is_too_long(self, tokens):
        pieces = translate.cut(tokens, LONGEST, 1)
        assert sum(pieces, []) == tokens
        assert all(0 < len(piece) <= LONGEST for piece in pieces)
        assert len(pieces) > 1 or len(tokens) <= LONGEST

    @pytest.mark.parametrize(
        "tokens, expected",
        [
            (["▁a", "b."], [["▁a", "b."]]),
            (["▁a.", "▁b", "▁c", "▁d"], [["▁a."], ["▁b", "▁c", "▁d"]]),
            (["▁a", "▁b", "c", "d", "e"], [["▁a"], ["▁b", "c", "d"], ["e"]]),
            (["a", "b", "c", "d"], [["a", "b", "c"], ["d"]]),
        ],
    )
    def test_after_sentences_else_between_words(self, tokens, expected):
        assert translate.cut(tokens, 3, 1) == expected


def test_what_is_too_long_is_translated_in_pieces_and_named(folders, text, capfd):
    sentence = (text / "test.src").read_text().splitlines()[0]
    line = " ".join([sentence] * 40)
    found = output_for(folders[0], f"{sentence}\n{line}\n".encode()).decode().splitlines()
    one, many = (len(translation.split()) for translation in found)
    assert many > 59 >= one  # the longest translation of one piece
    n_tokens = len(line.split())
    message = f"translate.py: line 2: {n_tokens} tokens, more than the model's {LONGEST}: "
    assert message + "translated in" in capfd.readouterr().err


def test_a_translation_without_end_and_bytes_that_are_no_text_are_named(folders, capfd):
    limits = {**translate.load_limits(folders[0]), "target": 1}
    translator = translate.ctranslate2.Translator(folders[0])
    pair = translate.load_subwords(folders[0])
    list(translate.translations(translator, pair, limits, [b"a\xff"], 7))
    messages = capfd.readouterr().err
    assert "line 7: not UTF-8 (invalid start byte)" in messages
    assert "line 7: its translation has no end after 1 tokens: cut there" in messages
