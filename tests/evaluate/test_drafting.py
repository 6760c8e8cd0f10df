"""Models as drafts of a teacher: what a report tells of them."""

import json

import pytest
from conftest import load_split, train
from processes import fairseq

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.decoding.speculative import DraftCounts, GreedyRule, SamplingRule
from fairseq_seqkd.evaluate.table import tables
from fairseq_seqkd.teacher import load_teacher
from fairseq_seqkd.teacher.drafting import DraftedTeacher


@pytest.fixture(scope="module")
def folder(data, checkpoints, tmp_path_factory):
    """The report of a teacher, a copy of it, and a student of two equal seeds."""
    folder = tmp_path_factory.mktemp("report")
    student = checkpoints["student"]
    models = [f"teacher={checkpoints['teacher']}", f"copy={checkpoints['teacher']}"]
    models.append(f"student={student},{student.replace('last', 'best')}")
    quickly = ["--engines", "fairseq", "--devices", "cpu", "--beams", "1", "--rounds", "1"]
    drafts = ["--draft-for", "teacher", "--draft-tokens", "3", "--max-len-b", "40"]
    command = ["evaluate", str(data), *quickly, *drafts, "--out", str(folder)]
    cli.main([*command, "--checkpoints", *models])
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    rows = json.loads((folder / "report.json").read_text())["drafts"]
    return {(row["model"], row["decoding"]): row for row in rows}


def test_every_other_model_drafts(rows):
    ways = [(model, way) for model in ("copy", "student") for way in ("greedy", "samples")]
    assert list(rows) == ways
    for row in rows.values():
        assert (row["teacher"], row["draft_tokens"], row["device"]) == ("teacher", 3, "cpu")
        expected = row["block_efficiency"] / (row["drafted_per_round"] * row["cost_ratio"] + 1)
        assert row["expected_speedup"] == pytest.approx(expected)
        ratio = row["step_seconds"] / row["teacher_step_seconds"]
        assert row["cost_ratio"] == pytest.approx(ratio) and ratio > 0


def test_a_copy_is_always_accepted(rows):
    for way in ("greedy", "samples"):
        row = rows["copy", way]
        assert row["acceptance_rate"] > 0.99
        assert row["accepted_per_round"] == pytest.approx(row["drafted_per_round"], rel=0.02)
        assert 3 < row["block_efficiency"] <= 4


def test_the_numbers_are_those_of_decoding(rows, data, checkpoints):
    """Of both seeds together, which are the same model here or not."""
    paths = [checkpoints["student"], checkpoints["student"].replace("last", "best")]
    teacher = load_teacher(checkpoints["teacher"])
    for way, rule in (("greedy", GreedyRule()), ("samples", SamplingRule())):
        drafts = DraftCounts()
        for path in paths:
            search = SearchOptions(1, max_len_b=40)
            drafted = DraftedTeacher(teacher, load_teacher(path), rule, 3, search)
            for id_, source in enumerate(load_split(data, "test").dataset.src):
                drafts += drafted(source, id_).drafts
        row = rows["student", way]
        assert row["acceptance_rate"] == drafts.acceptance_rate < 1
        assert row["block_efficiency"] == drafts.block_efficiency
        assert row["tokens"] == drafts.tokens


def test_table_and_page_have_them(folder):
    for name in ("report.md", "report.html"):
        content = (folder / name).read_text()
        assert "As drafts of teacher, 3 tokens a round" in content
        assert "Leviathan et al. 2023, theorem 3.8" in content
        assert "block efficiency" in content and "expected speedup" in content


def test_without_the_flag_there_is_no_table(report):
    assert report.drafts == []
    assert not any("drafts" in title for title, _ in tables(report))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--draft-for", "x"], "--draft-for: no checkpoint is called 'x', expected one of t"),
        (["--draft-for", "t"], "--draft-for t: no model drafts for it: there is no other"),
        (["--draft-for", "t", "--draft-tokens", "0"], "--draft-tokens is 0, expected 1"),
        (["--draft-tokens", "2"], "--draft-tokens needs --draft-for NAME"),
    ],
)
def test_flags_that_do_not_fit(data, checkpoints, refused, flags, message):
    models = ["--checkpoints", f"t={checkpoints['teacher']}"]
    assert message in refused("evaluate", data, *models, *flags)


def test_a_model_with_other_dictionaries(data, text, checkpoints, refused, tmp_path):
    """It is noted, and refused if no model is left."""
    pair = ["--source-lang", "src", "--target-lang", "tgt", "--destdir", tmp_path / "data"]
    splits = ["--trainpref", text / "train", "--testpref", text / "test"]
    fairseq("preprocess", *pair, *splits, "--validpref", text / "valid", "--thresholdtgt", 4)
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "2"]
    train(tmp_path / "data", tmp_path / "other", *loss)
    models = [f"teacher={checkpoints['teacher']}"]
    models.append(f"other={tmp_path / 'other' / 'checkpoint_last.pt'}")
    flags = ["--data-of", f"other={tmp_path / 'data'}", "--draft-for", "teacher"]
    message = refused("evaluate", data, "--checkpoints", *models, *flags)
    assert "other does not draft for teacher: the target dictionary of the draft" in message
    models.append(f"copy={checkpoints['teacher']}")
    quickly = ["--engines", "fairseq", "--devices", "cpu", "--beams", "1", "--rounds", "1"]
    out = ["--out", str(tmp_path / "out"), "--max-len-b", "20"]
    command = ["evaluate", data, "--checkpoints", *models, *flags, *quickly, *out]
    cli.main([*map(str, command)])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["model"] for row in report["drafts"]] == ["copy", "copy"]
    assert any("other does not draft for teacher" in note for note in report["notes"])
