"""A teacher that finishes few of its translations is no secret."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from conftest import USER_DIR, files, load_split, logged, ranks, train
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import fairseq, start

from fairseq_seqkd.chunked.plan import plan_chunks
from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.pseudo.store import STATUSES, NBest, PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.pseudo.unfinished import (
    TooManyUnfinished,
    check_unfinished,
    count_unfinished,
)


@pytest.fixture(scope="module")
def sources_only(data, tmp_path_factory):
    """The training split without gold targets."""
    folder = shutil.copytree(data, tmp_path_factory.mktemp("sources") / "data")
    for path in folder.glob("train.*.tgt.*"):
        path.unlink()
    return load_split(folder)


def store_with(root, split, statuses):
    """A store whose sentences have these statuses; the translated ones are copies or short."""
    store = PseudoTargetStore(str(root))
    store.create({**split.describe(), "search": {"nbest": 1}, "chunk_size": 160})
    (ids,) = plan_chunks(split.dataset.src_sizes, 160)
    hypotheses = [[(np.array([4 + id_ % 5, 2], np.int32), -0.1 * id_)] for id_ in range(160)]
    sentences = [
        NBest(id_, statuses[id_], hypotheses[id_] if statuses[id_] == "translated" else [])
        for id_ in ids.tolist()
    ]
    store.write_chunk(0, sentences)
    return store


@given(
    statuses=st.lists(st.sampled_from(STATUSES), min_size=160, max_size=160),
    ratio=st.sampled_from([None, 1.0, 3.0]),
    percentile=st.sampled_from([None, 50.0]),
    drop=st.booleans(),
    has_gold=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_counts_what_the_teacher_did_not_finish_and_nothing_else(
    tmp_path_factory, split, sources_only, statuses, ratio, percentile, drop, has_gold
):
    """Whatever the filters reject, with gold targets and without them."""
    spec = TargetSpec(
        Best(), {"length_ratio": ratio, "score_percentile": percentile}, drop or not has_gold
    )
    used = split if has_gold else sources_only
    store = store_with(tmp_path_factory.mktemp("counted") / "store", used, statuses)
    try:
        databin = build_databin(store, used, spec)
    except ValueError as error:  # the filters left nothing
        assert "would have no sentence" in str(error)
        return
    report = read_json(f"{databin}/target_spec.json")
    expected = Counter(statuses)
    nonempty = 160 - expected.pop("empty source", 0)
    expected.pop("translated", None)
    assert count_unfinished(report) == (dict(expected), nonempty)


@pytest.mark.parametrize(
    "unfinished, accepted, outcome",
    [
        (0, None, "silent"),
        (2, None, "silent"),
        (3, None, "warns"),
        (40, None, "warns"),
        (41, None, "stops"),
        (41, 0.205, "warns"),
        (41, 0.2, "stops"),
        (3, 0.0, "stops"),
        (200, 1.0, "warns"),
    ],
)
def test_above_1_percent_it_warns_and_above_20_it_stops(
    tmp_path, caplog, unfinished, accepted, outcome
):
    """Of 200 sentences; 50 empty ones and 70 that a filter rejected do not count."""
    numbers = {
        "teacher": 130 - min(unfinished, 130),
        "gold": {"empty source": 50, "filter copies": 70 - max(0, unfinished - 130)},
        "dropped": {"no finished hypothesis": unfinished},
    }
    (tmp_path / "target_spec.json").write_text(json.dumps({"sentences": numbers}))
    text = f"finished no hypothesis for {unfinished} of 200 sentences"
    if outcome == "stops":
        with pytest.raises(TooManyUnfinished, match=f"{text}.*--accept-unfinished 1 takes"):
            check_unfinished(str(tmp_path), accepted)
    else:
        check_unfinished(str(tmp_path), accepted)
        assert (text in caplog.text) == (outcome == "warns")
        assert (f"{unfinished} no finished hypothesis" in caplog.text) == (outcome == "warns")


@pytest.fixture
def status_of(data, teacher, tmp_path):
    """status_of(name, *flags): a subcommand's exit status, on a store in ``tmp_path``."""

    def call(name, *flags):
        words = [name, data, "--pseudo-targets", tmp_path / "store", "--threads", 1, *flags]
        try:
            main([*map(str, words)])
        except SystemExit as error:
            return error.code
        return 0

    return call


# A target has at most one token, and the teacher ends none so early.
SHORT = ["--max-len-b", 1, "--beam", 2, "--engine", "fairseq"]


def test_exit_status_3_with_everything_made(status_of, teacher, tmp_path, capsys):
    flags = [*SHORT, "--teacher-path", teacher]
    assert status_of("generate", *flags) == 3
    message = capsys.readouterr().err
    assert "no hypothesis for" in message and "no finished hypothesis" in message
    made = files(tmp_path / "store")
    assert "best/target_spec.json" in made and "nbest/sums.json" in made
    assert status_of("generate", *flags) == 3
    assert status_of("merge") == 3
    assert status_of("merge", "--accept-unfinished", 1) == 0
    assert status_of("generate", *flags, "--accept-unfinished", 1) == 0
    assert files(tmp_path / "store") == made


def test_of_several_processes_the_one_that_finishes(status_of, teacher, monkeypatch):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 50)
    flags = [*SHORT, "--teacher-path", teacher, "--num-shards", 3, "--shard-id"]
    assert [status_of("generate", *flags, rank) for rank in (1, 0, 2)] == [0, 0, 3]


def test_a_fraction_out_of_range(refused, data, teacher, tmp_path):
    flags = ["--pseudo-targets", tmp_path / "store", "--teacher-path", teacher]
    message = refused("generate", data, *flags, "--accept-unfinished", 20)
    assert "--accept-unfinished is 20.0, expected a number from 0 to 1" in message
    assert not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def useless(data, tmp_path_factory):
    """The checkpoint of a teacher after one small update, which ends none of its sentences."""
    folder = tmp_path_factory.mktemp("useless")
    train(data, folder, "--task", "translation", "--max-update", "1", "--lr", "1e-9")
    return folder / "checkpoint_last.pt"


@pytest.fixture
def seq_kd(useless, tmp_path):
    return [
        *["--task", "translation_seqkd", "--criterion", "seq_kd", "--teacher-path", useless],
        *["--pseudo-targets", tmp_path / "store", "--teacher-beam", "1", "--max-update", "1"],
        *["--teacher-engine", "fairseq"],
    ]


def test_a_training_that_makes_or_opens_it_stops_before_its_first_update(
    data, seq_kd, tmp_path
):
    outputs = ranks(2, data, tmp_path / "run", *seq_kd, fails=True)
    outputs.append(train(data, tmp_path / "run", *seq_kd, fails=True))
    for output in outputs:
        assert "the teacher finished no hypothesis for" in output
        assert "--accept-unfinished 1 takes it as it is" in output
        assert logged(output, "train_inner") == []
    assert (tmp_path / "store" / "best" / "target_spec.json").exists()
    log = train(data, tmp_path / "run", *seq_kd, "--accept-unfinished", "1")
    assert "the teacher finished no hypothesis for" in log and logged(log, "train_inner")


def test_fairseq_generate_ends_with_status_3(data, useless, tmp_path):
    flags = [
        *["--user-dir", USER_DIR, "--task", "translation_seqkd", "--path", useless, "--cpu"],
        *["--gen-subset", "valid", "--pseudo-targets", tmp_path / "store", "--beam", "1"],
    ]
    process, _ = start("generate", data, *flags)
    process.join()
    assert process.exitcode == 3
    output = fairseq("generate", data, *flags, "--accept-unfinished", "1")
    assert "H-0\t" in output and "the teacher finished no hypothesis for" in output
