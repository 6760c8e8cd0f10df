import gzip
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
import torch
from conftest import CTRANSLATE2, LSTM, USER_DIR, load_split, lprobs_of, preprocess, train
from processes import fairseq

from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.evaluate.candidates import Candidate
from fairseq_seqkd.evaluate.corpus import load_references
from fairseq_seqkd.evaluate.engines import DEFAULT_ENGINES
from fairseq_seqkd.evaluate.table import render_markdown


def row_of(report, model, engine="fairseq", beam=3):
    return next(
        row for row in report.rows if (row.model, row.engine, row.beam) == (model, engine, beam)
    )


@CTRANSLATE2
def test_there_is_a_row_for_every_model_engine_and_beam(report):
    ways = {(row.model, row.engine, row.beam) for row in report.rows}
    expected = {
        (model, engine, beam)
        for model in ("teacher", "student")
        for engine in DEFAULT_ENGINES
        for beam in (1, 3)
    }
    assert ways == expected and len(report.rows) == len(expected)
    assert not report.notes


def test_a_test_set_in_fairseqs_older_format(older, data, teacher):
    found, expected = (
        Candidate.load("teacher", str(teacher), str(folder), ["test"])
        for folder in (older, data)
    )
    references = [
        load_references(one.splits[0], Detokeniser(one.dictionary)) for one in (found, expected)
    ]
    assert references[0] == references[1] and len(references[0]) == 20
    sources = [[tokens.tolist() for tokens in one.dataset.src] for one in (found, expected)]
    assert sources[0] == sources[1]


@pytest.mark.parametrize("beam", [1, 3])
def test_scores_are_those_of_fairseq_generate_and_sacrebleu(report, data, text, teacher, beam):
    output = fairseq(
        *["generate", data, "--path", teacher, "--user-dir", USER_DIR, "--cpu"],
        *["--beam", beam, "--required-batch-size-multiple", "1"],
    )
    found = re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)
    texts = [line for _, line in sorted((int(i), line) for i, line in found)]
    references = (text / "test.tgt").read_text().splitlines()
    assert len(texts) == len(references) == 20
    row = row_of(report, "teacher", beam=beam)
    bleu = sacrebleu.corpus_bleu(texts, [references])
    assert row.bleu == pytest.approx(bleu.score, abs=0.005)
    assert row.length_ratio == pytest.approx(bleu.sys_len / bleu.ref_len)
    assert row.chrf == pytest.approx(
        sacrebleu.corpus_chrf(texts, [references]).score, abs=0.005
    )
    assert report.signatures["BLEU"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|")
    assert report.signatures["chrF"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|")


def test_the_command_of_a_row_gives_its_bleu(report):
    """As a person would: pasted into a shell."""
    command = row_of(report, "teacher").command
    script = f"{command} -b -w 4 2>/dev/null".replace("-m bleu chrf", "-m bleu")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    output = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    assert float(output) == pytest.approx(row_of(report, "teacher").bleu, abs=0.005)


@CTRANSLATE2
def test_ctranslate2_says_the_same_as_fairseq(report):
    for beam in (1, 3):
        ours = row_of(report, "teacher", "ctranslate2:float32", beam)
        theirs = row_of(report, "teacher", beam=beam)
        assert ours.bleu == pytest.approx(theirs.bleu, abs=0.5)
        assert (
            ours.weight_bytes > row_of(report, "teacher", "ctranslate2:int8", beam).weight_bytes
        )


@CTRANSLATE2
def test_engines_with_a_shortlist(fairseq_alone, data, teacher, checkpoints):
    """Only the model that has one is run with it; the command says which it was."""
    engines = ["ctranslate2:int8", "ctranslate2:int8+shortlist"]
    shortlists = {"student": str(data)}
    report = fairseq_alone(checkpoints, engines=engines, shortlists=shortlists)
    plain, listed = (row for row in report.rows if row.model == "student")
    assert [row.engine for row in report.rows if row.model == "teacher"] == engines[:1]
    assert [plain.engine, listed.engine] == engines
    assert f"--shortlist student={data}" in listed.command
    assert "--shortlist" not in plain.command
    assert listed.weight_bytes > plain.weight_bytes  # with the map
    assert "ctranslate2 int8+shortlist" in render_markdown(report)
    default = fairseq_alone({"t": str(teacher)}, engines=None, shortlists={"t": str(data)})
    assert [row.engine for row in default.rows] == [*DEFAULT_ENGINES, engines[1]]


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"engines": ["ctranslate2:int8+shortlist"]}, "needs --shortlist NAME=DATA"),
        ({"shortlists": {"t": "DATA"}}, "--shortlist has no effect with --engines fairseq"),
        (
            {"engines": None, "shortlists": {"u": "DATA"}},
            "--shortlist: no checkpoint is called",
        ),
        ({"engines": ["ctranslate2:+shortlist"]}, "found 'ctranslate2:+shortlist', expected"),
        ({"engines": None, "shortlists": {"t": "no"}}, "--shortlist: there is no 'no'"),
    ],
)
def test_shortlists_that_cannot_be(fairseq_alone, teacher, settings, expected):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(expected)):
        fairseq_alone({"t": str(teacher)}, **settings)


def test_rows_are_compared_with_the_first_models_largest_beam(report):
    baseline = report.baseline
    assert baseline is row_of(report, "teacher") and baseline.gain is None
    for row in report.rows:
        if row is not baseline:
            assert row.gain["bleu"] == pytest.approx(row.bleu - baseline.bleu, abs=1e-3)
            assert row.gain["low"] <= row.gain["bleu"] <= row.gain["high"]


def test_every_line_is_counted_and_every_round_timed(report):
    for row in report.rows:
        assert row.sentences == report.sentences == 20
        assert len(row.seconds) > 1 and {len(chunk) for chunk in row.seconds} == {2}
        slowest, fastest = row.speed_range
        assert slowest <= row.sentences_per_second <= fastest
        tokens_per_sentence = row.tokens_per_second / row.sentences_per_second
        assert tokens_per_sentence == pytest.approx(row.tokens / 20)
        assert len(row.bleu_by_length) == len(report.length_groups) > 1


def test_parameters_are_counted_once(report, teacher):
    weights = {
        tensor.data_ptr(): tensor  # the shared embedding has two names
        for name, tensor in torch.load(teacher)["model"].items()
        if name.endswith((".weight", ".bias"))
    }
    model = report.model("teacher")
    assert model.parameters == sum(tensor.numel() for tensor in weights.values())
    assert model.nonzero_parameters == sum(
        int((tensor != 0).sum()) for tensor in weights.values()
    )
    assert model.nonzero_parameters < model.parameters  # the padding symbol's embedding
    assert model.checkpoint_bytes == teacher.stat().st_size
    assert row_of(report, "teacher").weight_bytes == 4 * model.parameters


def test_mode_mass_is_the_probability_of_the_beam_output(report, data, loaded):
    """The output is scored again, position by position: p(y-hat | s) of Kim & Rush."""
    dataset = load_split(data, "test").dataset
    masses = []
    for i in range(20):
        sample = dataset.collater([dataset[i]])["net_input"]
        inputs = {key: sample[key] for key in ("src_tokens", "src_lengths")}
        tokens = loaded.generate(inputs, SearchOptions(beam=3))[0][0]["tokens"]
        prefix = torch.cat([tokens[-1:], tokens[:-1]])[None]
        lprobs = lprobs_of(loaded, {**inputs, "prev_output_tokens": prefix})
        masses.append(lprobs[0].gather(1, tokens[:, None]).sum().exp().item())
    assert report.model("teacher").mode_mass == pytest.approx(np.mean(masses), rel=1e-3)
    assert 0 < np.mean(masses) < 1


def test_greedy_equals_beam_needs_both(report, fairseq_alone, teacher):
    assert 0 <= report.model("student").greedy_equals_beam <= 1
    same = fairseq_alone({"t": str(teacher)}, beams=(1,))
    assert same.models[0].greedy_equals_beam is None  # no beam to compare with


def test_one_model_under_two_names(fairseq_alone, teacher):
    both = fairseq_alone({"a": str(teacher), "b": str(teacher)}).rows
    assert both[0].bleu == both[1].bleu and both[1].gain["low"] == 0
    assert both[0].tokens == both[1].tokens


def test_references_come_from_the_file_or_the_gold_targets(data, teacher, text):
    candidate = Candidate.load("t", str(teacher), str(data), ["test"])
    detokenise = Detokeniser(candidate.dictionary)
    gold = load_references(candidate.splits[0], detokenise)
    lines = load_references(candidate.splits[0], detokenise, text / "test.tgt")
    assert lines == (text / "test.tgt").read_text().splitlines()
    for one, other in zip(gold, lines):
        assert len(one.split()) == len(other.split())
        for word, expected in zip(one.split(), other.split()):
            assert word == expected or word == "UNKNOWNTOKENINREF"
    assert sum(one == other for one, other in zip(gold, lines)) > 5


def test_moses_tokenisation_is_undone(fairseq_alone, teacher):
    pytest.importorskip("sacremoses")
    plain = fairseq_alone({"t": str(teacher)}).rows[0]
    undone = fairseq_alone({"t": str(teacher)}, moses="en").rows[0]
    assert (
        undone.bleu != plain.bleu or undone.chrf != plain.chrf or undone.tokens == plain.tokens
    )


def test_without_a_reference_file_the_command_is_evaluate(fairseq_alone, teacher):
    (row,) = fairseq_alone({"t": str(teacher)}).rows
    assert row.command.startswith("fairseq-seqkd evaluate ") and "t=" in row.command


def test_subwords_in_the_references_are_noted(fairseq_alone, teacher, tmp_path):
    (tmp_path / "reference").write_text("▁a ▁b\n" * 20)
    report = fairseq_alone({"t": str(teacher)}, reference_files=[tmp_path / "reference"])
    assert "The references contain '▁': the scores are computed on subwords" in report.notes[0]


def test_a_line_that_is_too_long(data, teacher, text, tmp_path):
    """The training set has a source of more tokens than the teacher takes."""
    expected = "'t' takes at most 30 source tokens, but line 11 of 'train'"
    with pytest.raises(ValueError, match=expected):
        Candidate.load("t", str(teacher), str(data), ["train"])


class TestOtherDictionaries:
    @pytest.fixture(scope="class")
    def other(self, text, tmp_path_factory):
        """The same lines with a smaller vocabulary, and a student trained on them."""
        folder = tmp_path_factory.mktemp("other")
        data = preprocess(text, folder / "data-bin", "--thresholdtgt", "4")
        train(
            *[data, folder, "--task", "translation", "--criterion", "cross_entropy"],
            *["--max-update", "2"],
        )
        return data, folder / "checkpoint_last.pt"

    def test_are_refused(self, fairseq_alone, teacher, other):
        with pytest.raises(ValueError) as error:
            fairseq_alone({"t": str(teacher), "other": str(other[1])})
        assert "the target dictionary of 'other', in " in str(error.value)
        assert "add --data-of other=THAT-DATA-BIN" in str(error.value)

    def test_can_be_compared_as_text(self, fairseq_alone, teacher, other, text):
        report = fairseq_alone(
            {"t": str(teacher), "other": str(other[1])},
            data_of={"other": str(other[0])},
            reference_files=[text / "test.tgt"],
        )
        assert report.notes == [
            f"other has other dictionaries than t and uses the data-bin {other[0]}: compare "
            "their scores, which are on text, but not their numbers of tokens."
        ]
        assert report.rows[1].model == "other" and report.rows[1].sentences == 20

    def test_of_other_lines(self, fairseq_alone, teacher, other, text, tmp_path):
        short = tmp_path / "text"
        short.mkdir()
        for name in ("train", "valid", "test"):
            for side in ("src", "tgt"):
                lines = (text / f"{name}.{side}").read_text().splitlines()[:19]
                (short / f"{name}.{side}").write_text("\n".join(lines) + "\n")
        dictionaries = [f"--{s}dict={other[0] / f'dict.{s}.txt'}" for s in ("src", "tgt")]
        data = preprocess(short, tmp_path / "data-bin", *dictionaries)
        with pytest.raises(ValueError, match="has 19 lines in 'test', expected the 20 of"):
            fairseq_alone(
                {"t": str(teacher), "other": str(other[1])}, data_of={"other": str(data)}
            )


@CTRANSLATE2
def test_an_lstm_cannot_be_converted_and_the_report_says_so(data, fairseq_alone, tmp_path):
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "1"]
    train(data, tmp_path, *loss, model=LSTM)
    path = {"lstm": str(tmp_path / "checkpoint_last.pt")}
    report = fairseq_alone(path, engines=None)
    assert [row.engine for row in report.rows] == ["fairseq"]
    assert "lstm was not run with ctranslate2:int8: it cannot convert" in report.notes[1]
    with pytest.raises(ValueError, match="--engines ctranslate2:int8, 'lstm': it cannot conv"):
        fairseq_alone(path, engines=["ctranslate2:int8"])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"engines": ["marian"]}, "--engines: found 'marian', expected fairseq, or ctrans"),
        pytest.param(
            *({"engines": ["ctranslate2:int3"]}, "the compute type is 'int3'"),
            marks=CTRANSLATE2,
        ),
        ({"data_of": {"x": "data-bin"}}, "--data-of: no checkpoint is called 'x', expected"),
        ({"remove_bpe": "bpe"}, "--remove-bpe is 'bpe', expected one of fairseq"),
        ({"split": "tast"}, "has no binarised 'tast' split"),
    ],
)
def test_invalid_settings(fairseq_alone, teacher, settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fairseq_alone({"t": str(teacher)}, **settings)


def test_reference_file_with_another_line_count(fairseq_alone, teacher, text):
    with pytest.raises(ValueError, match="valid.tgt' has 24 lines, expected the 20 of 'test'"):
        fairseq_alone({"t": str(teacher)}, reference_files=[text / "valid.tgt"])


def test_references_may_be_compressed_and_have_any_characters(data, teacher, text, tmp_path):
    candidate = Candidate.load("t", str(teacher), str(data), ["test"])
    lines = (text / "test.tgt").read_text().splitlines()
    lines[3] += "\r\u2028\x85 more"
    content = "\ufeff" + "".join(line + "\r\n" for line in lines)
    (tmp_path / "ref").write_bytes(gzip.compress(content.encode()))
    assert load_references(candidate.splits[0], None, tmp_path / "ref") == lines
    (tmp_path / "ref").write_bytes("".join(line + "\n" for line in lines[1:]).encode())
    with pytest.raises(ValueError, match="has 19 lines.* They probably part near line"):
        load_references(candidate.splits[0], None, tmp_path / "ref")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(fairseq_alone, teacher):
    with pytest.raises(ValueError, match="--devices cuda: torch sees no GPU here"):
        fairseq_alone({"t": str(teacher)}, devices=["cuda"])
