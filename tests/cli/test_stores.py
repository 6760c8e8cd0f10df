"""``fairseq-seqkd generate``, ``merge`` and ``import``."""

import gzip
import io
import math
import os
import shutil

import pytest
from advice import errors_of, unknown_flags
from conftest import EMPTY, LONG, all_nbest, load_split

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.selectors import BestAtLengthPenalty
from fairseq_seqkd.pseudo.store import PseudoTargetStore

ACCEPT = ["--accept-unfinished", 1]  # the teacher has learned little


@pytest.fixture
def run(data, tmp_path, capsys):
    """Run a subcommand on the tests' data and return what it printed, or its error message."""

    def call(name, *arguments, fails=False, root=tmp_path / "store", folder=data):
        words = [name, folder, "--pseudo-targets", root, "--threads", 1, *ACCEPT, *arguments]
        try:
            main([str(word) for word in words])
            assert not fails
        except SystemExit as error:
            assert fails and error.code == 2
        captured = capsys.readouterr()
        assert not fails or unknown_flags(name, errors_of(name, captured.err)) == set()
        return captured.err if fails else captured.out

    return call


def translated(tmp_path):
    """The number of sentences of the store that have a hypothesis."""
    return sum(bool(one.hypotheses) for one in all_nbest(tmp_path / "store").values())


@pytest.fixture
def by(teacher):
    """Flags: a teacher, and a small search with the fairseq engine."""
    return ["--teacher-path", teacher, "--beam", 3, "--engine", "fairseq"]


def test_prints_a_summary_and_the_next_command(run, by, tmp_path, data):
    output = run("generate", *by)
    count = translated(tmp_path)
    assert f"{tmp_path / 'store' / 'best'}: {count} sentences translated by the" in output
    assert "1 sentences keep their gold target: empty source" in output
    assert "mean score -" in output
    quality = read_json(tmp_path / "store" / "best" / "target_spec.json")["quality"]
    assert f"BLEU {quality['bleu']:.2f}, chrF {quality['chrf']:.2f} against gold (" in output
    assert f"({count} sentences; tokens, not detokenised)" in output
    assert f"fairseq-train {data} --user-dir $(fairseq-seqkd user-dir) --task" in output
    assert f"--criterion seq_kd --pseudo-targets {tmp_path / 'store'}" in output
    assert f"fairseq-train {tmp_path / 'store' / 'best'} --task translation ..." in output


def test_by_hand_in_three_shards(run, by, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 16)
    for rank in (2, 0):
        output = run("generate", *by, "--num-shards", 3, "--shard-id", rank)
        assert "chunks of" in output and "are left to others" in output
    output = run("generate", *by, "--num-shards", 3, "--shard-id", 1)
    assert f"{translated(tmp_path)} sentences translated" in output
    assert len(all_nbest(tmp_path / "store")) == 160


def test_the_work_of_one_that_died_is_done_by_another(run, by, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 16)
    run("generate", *by, "--num-shards", 2, "--shard-id", 0)
    message = run("merge", fails=True)
    assert "is not finished (5 of 10 chunks are missing). Give --teacher-path" in message
    output = run("generate", *by)
    assert f"{translated(tmp_path)} sentences translated" in output
    assert len(all_nbest(tmp_path / "store")) == 160


def test_another_workers_damaged_chunk_is_mended_by_the_last(run, by, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 16)
    run("generate", *by, "--num-shards", 2, "--shard-id", 0)
    store = PseudoTargetStore(str(tmp_path / "store"))
    damaged = store.chunks.find()[0]
    with open(damaged, "ab") as file:
        file.write(b"x")
    run("generate", *by, "--num-shards", 2, "--shard-id", 1)
    assert store.chunks.find()[0] == damaged
    assert store.chunks.remove_damaged(range(10)) == []


def test_merge_ranks_anew_by_another_length_penalty(run, by, tmp_path):
    """Stored hypotheses get the scores of a search with that penalty."""
    run("generate", *by, "--beam", 4, "--lenpen", 1)
    output = run("merge", "--lenpen", 0.2)
    assert "best-lenpen0.2: " in output
    run("generate", *by, "--beam", 4, "--lenpen", 0.2, root=tmp_path / "decoded")
    selector, n = BestAtLengthPenalty(1.0, 0.2), 0
    expected = all_nbest(tmp_path / "decoded")
    for id_, sentence in all_nbest(tmp_path / "store").items():
        scores = {tuple(t): s for t, s in expected[id_].hypotheses}
        for (tokens, _), score in zip(
            sentence.hypotheses, selector.values(sentence.hypotheses)
        ):
            if tuple(tokens) in scores:
                assert score == pytest.approx(scores[tuple(tokens)], rel=1e-5)
                n += 1
        if sentence.hypotheses:
            best = selector(sentence.hypotheses, None)
            anew = [s * len(t) ** 0.8 for t, s in sentence.hypotheses]
            assert anew[best] == max(anew)
    assert n > 100
    for flags, message in (
        (["--lenpen", "nan"], "--lenpen is nan, expected a number"),
        (["--lenpen", 1.4, "--select", "mbr"], "--lenpen with --select mbr"),
    ):
        assert message in run("merge", *flags, fails=True)


def test_merge_selects_anew_without_a_teacher(run, by, tmp_path):
    run("generate", *by)
    output = run("merge", "--select", "closest", "--metric", "chrf")
    assert "closest-chrf: " in output and "seq_inter" not in output
    output = run("merge", "--select", "mbr")
    assert "mbr: " in output and f"{translated(tmp_path)} sentences translated" in output
    output = run("merge", "--select", "mbr", "--mbr-weights")
    assert "mbr-weighted: " in output
    report = read_json(tmp_path / "store" / "mbr-weighted" / "target_spec.json")
    assert report["mbr_weights"] == "probability"
    output = run("merge", "--filter-score-percentile", 10, "--databin", "better")
    worst = math.ceil(0.1 * translated(tmp_path))
    assert f"{worst} sentences keep their gold target: filter score_percentile" in output
    report = read_json(tmp_path / "store" / "better" / "target_spec.json")
    assert report["filters"] == {"score_percentile": 10.0}
    assert report["filter_action"] == "gold"
    output = run("merge", "--filter-copies", "--filter-action", "drop", "--databin", "none")
    assert f"{translated(tmp_path)} sentences translated" in output


def test_overwrite_starts_anew(run, by, tmp_path):
    run("generate", *by)
    refused = run("generate", *by, "--nbest", 2, fails=True)
    assert "search.nbest: found 3, expected 2" in refused
    before = all_nbest(tmp_path / "store").keys()
    assert "no checkpoint at" in run(
        "generate", *by, "--overwrite", "--teacher-path", "nosuch.pt", fails=True
    )
    assert all_nbest(tmp_path / "store").keys() == before  # nothing was lost
    run("generate", *by, "--nbest", 2, "--overwrite", "--accept-unfinished", 0.5)
    assert PseudoTargetStore(str(tmp_path / "store")).manifest["search"]["nbest"] == 2


def test_data_of_fairseqs_older_format(run, by, tmp_path, older):
    """Translated, selected anew, and imported from output of fairseq-generate."""
    run("generate", *by, folder=older)
    run("merge", "--select", "closest", folder=older)
    split = load_split(older)
    lines = [
        line
        for id_ in range(160)
        for line in (
            f"S-{id_}\t{split.dataset.src_dict.string(split.dataset.src[id_])}",
            f"H-{id_}\t-0.5\t{split.dataset.tgt_dict.string(split.dataset.tgt[id_])}",
        )
    ]
    (tmp_path / "output.txt").write_text("\n".join(lines) + "\n")
    run("import", tmp_path / "output.txt", root=tmp_path / "imported", folder=older)
    imported = load_split(tmp_path / "imported" / "best")
    assert imported.describe()["data"] == split.describe()["data"]


def test_import(run, tmp_path, data):
    targets = load_split(data).dataset
    lines = [targets.tgt_dict.string(tokens) for tokens in targets.tgt]
    (tmp_path / "text").write_text("\n".join(reversed(lines)) + "\n")
    output = run("import", tmp_path / "text", "--remove-bpe", "@@ ")
    assert "160 sentences translated" in output and "against gold (160 sentences)" in output
    written = load_split(tmp_path / "store" / "best").dataset.tgt
    assert written[0].tolist() == targets.tgt[159].tolist()
    message = run("merge", "--filter-score-percentile", 5, "--databin", "x", fails=True)
    assert "imported from plain text, which has no scores" in message
    lists = "".join(f"{i} ||| a b ||| -1\n{i} ||| a c ||| -2\n" for i in range(160))
    (tmp_path / "lists").write_text(lists)
    weighted = ["--select", "mbr", "--mbr-weights"]
    message = run("import", tmp_path / "lists", *weighted, root=tmp_path / "n", fails=True)
    assert "--mbr-weights: the store" in message and "was imported, and how its" in message


@pytest.mark.parametrize("kind", ["compressed", "pipe", "standard input"])
def test_import_of_text_that_is_no_plain_file(run, tmp_path, data, kind, monkeypatch):
    """With a byte-order mark and Windows line ends; the store is that of the plain file."""
    targets = load_split(data).dataset
    lines = [targets.tgt_dict.string(tokens) for tokens in targets.tgt]
    content = gzip.compress(("\ufeff" + "".join(line + "\r\n" for line in lines)).encode())
    path = tmp_path / "text"
    if kind == "pipe":
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        path = f"/dev/fd/{reading}"
    elif kind == "standard input":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        path = "-"
    else:
        path.write_bytes(content)
    assert "160 sentences translated" in run("import", path)
    written = load_split(tmp_path / "store" / "best").dataset.tgt
    assert [one.tolist() for one in written] == [one.tolist() for one in targets.tgt]
    (tmp_path / "plain").write_bytes(gzip.decompress(content))
    run("import", tmp_path / "plain")  # the same content: the same store


def test_import_of_standard_input_twice(run):
    assert "'-' twice: standard input can be read once" in run("import", "-", "-", fails=True)


def test_an_import_that_was_cut_short_goes_on(run, tmp_path, data, monkeypatch):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 16)
    monkeypatch.setattr("fairseq_seqkd.pseudo.importing.chunk_size", lambda sentences: 16)
    (tmp_path / "text").write_text("a\n" * 160)
    run("import", tmp_path / "text")
    store = PseudoTargetStore(str(tmp_path / "store"))
    os.unlink(store.chunks.find()[3])
    shutil.rmtree(store.path("best"))
    assert "run fairseq-seqkd import again" in run("merge", fails=True)
    run("import", tmp_path / "text")
    assert len(all_nbest(store.root)) == 160


def test_source_only(run, by, data, tmp_path):
    folder = tmp_path / "source-only"
    shutil.copytree(data, folder)
    for suffix in ("bin", "idx"):
        os.unlink(folder / f"train.src-tgt.tgt.{suffix}")
    output = run("generate", *by, folder=folder)
    assert "1 sentences are dropped: empty source" in output and "BLEU" not in output
    assert "1 sentences are dropped: source too long" in output
    assert "with stock fairseq:\n  fairseq-train" in output and "seq_kd" not in output
    dataset = load_split(tmp_path / "store" / "best").dataset
    gold = load_split(data).dataset
    lists = all_nbest(tmp_path / "store")
    kept = [i for i in range(160) if lists[i].hypotheses]
    assert EMPTY not in kept and LONG not in kept
    assert [s.tolist() for s in dataset.src] == [gold.src[i].tolist() for i in kept]
    output = run("merge", "--select", "closest", folder=folder)
    assert f"{len(kept)} sentences have no gold target to compare with" in output


class TestRefuses:
    @pytest.mark.parametrize(
        "flags, message",
        [
            (["--beam", 0], "--beam is 0, expected 1 or more"),
            (["--nbest", 4], "kept is 4 (nbest), expected from 1 to the beam, which is 3"),
            (["--threads", 0], "--threads is 0, expected 1 or more"),
            (["--num-shards", 2], "--num-shards and --shard-id go together"),
            (["--num-shards", 2, "--shard-id", 2], "this is shard 2 of 2"),
            (["--num-shards", 2, "--shard-id", 0, "--overwrite"], "one of 2 processes"),
            (["--split", "nosuch"], "has no binarised 'nosuch' split"),
            (["--teacher-path", "nosuch.pt"], "no checkpoint at 'nosuch.pt'"),
            (["--databin", "../x"], "--databin is '../x': expected the name"),
            (["--filter-length-ratio", 0.2], "--filter-length-ratio is 0.2"),
            (["--nbest", 1, "--select", "closest"], "nothing to select 'closest' from"),
            (["--mbr-weights"], "--mbr-weights with --select best: it weights"),
            (["--filter-scores", "nosuch", "--filter-percentile", 5], "no file 'nosuch'"),
            (["--filter-scores", __file__], "--filter-percentile is None, expected above 0"),
            (["--filter-percentile", 5], "--filter-percentile needs --filter-scores FILE"),
            (["--databin", "nbest"], "--databin is 'nbest': expected the name of a folder"),
            (["--remove-bpe", "spm", "--select", "closest"], "--remove-bpe is 'spm', expected"),
            (["--source-lang", "xx"], "cannot be inferred from its files"),
        ],
    )
    def test_flags(self, run, by, tmp_path, flags, message):
        assert message in run("generate", *by, *flags, fails=True)
        assert not (tmp_path / "store" / "best").exists()

    def test_no_data(self, run, by, tmp_path):
        message = run("generate", *by, folder=tmp_path / "nosuch", fails=True)
        assert "nosuch': expected a data-bin" in message

    def test_no_teacher(self, run):
        assert "there is no store at" in run("generate", fails=True)

    def test_a_folder_that_is_no_store(self, run, by, tmp_path):
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "mine").write_text("precious")
        assert "has 'mine', which is not a store's" in run(
            "generate", *by, "--overwrite", fails=True
        )
        assert (tmp_path / "store" / "mine").read_text() == "precious"
