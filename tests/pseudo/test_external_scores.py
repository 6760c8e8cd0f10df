"""``merge --nbest-list FILE`` and ``--select scores --scores FILE``."""

import random
import shutil

import pytest
from conftest import all_nbest, files, load_split, tokens_of, train

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.io.files import read_json, sha256
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.nbest_lists import parse_item


@pytest.fixture
def root(store, tmp_path):
    """A copy of the store of 4-best lists."""
    return shutil.copytree(store, tmp_path / "store")


@pytest.fixture
def merge(data, root, capsys):
    """merge(*flags): what the command prints."""

    def call(*flags, name="merge"):
        words = [name, data, "--pseudo-targets", root, "--threads", 1, *flags]
        main([str(word) for word in words])
        return capsys.readouterr().out

    return call


@pytest.fixture
def exported(merge, tmp_path):
    """The lines of the exported list."""
    merge("--nbest-list", tmp_path / "list")
    return (tmp_path / "list").read_text().splitlines()


def random_scores(count):
    draw = random.Random(1)
    return [draw.random() for _ in range(count)]


def test_the_list_has_all_hypotheses_in_the_order_of_the_data(exported, root, split):
    text = Detokeniser(split.dataset.tgt_dict).text
    expected = [
        (id_, pytest.approx(score, rel=1e-6), text(tokens))
        for id_, sentence in sorted(all_nbest(root).items())
        for tokens, score in sentence.hypotheses
    ]
    assert [parse_item(line) for line in exported] == expected


def test_the_list_can_be_imported(exported, data, root, tmp_path):
    words = ["import", data, tmp_path / "list", "--pseudo-targets", tmp_path / "again"]
    main([str(word) for word in [*words, "--threads", 1]])
    before, after = all_nbest(root), all_nbest(tmp_path / "again")
    assert {i: tokens_of(s) for i, s in before.items()} == {
        i: tokens_of(s) for i, s in after.items()
    }


def test_text_that_the_format_could_not_hold(merge, data, root, tmp_path, monkeypatch):
    monkeypatch.setattr(Detokeniser, "text", lambda self, tokens: "a ||| b\nc")
    merge("--nbest-list", tmp_path / "list")
    for line in (tmp_path / "list").read_text().splitlines():
        assert parse_item(line)[2] == "a &#124;&#124;&#124; b c"


@pytest.mark.parametrize("as_list", [False, True])
def test_the_highest_score_is_selected(merge, exported, root, split, tmp_path, as_list):
    """Of the file of numbers, and of the list with the scores as its last field."""
    scores = random_scores(len(exported))
    with open(tmp_path / "scores", "w") as file:
        for line, score in zip(exported, scores):
            file.write(f"{line} ||| {score}\n" if as_list else f"{score}\n")
    assert "/scores: " in merge("--select", "scores", "--scores", tmp_path / "scores")
    targets = load_split(root / "scores").dataset.tgt
    begin = 0
    for id_, sentence in sorted(all_nbest(root).items()):
        if sentence.hypotheses:
            mine = scores[begin : begin + len(sentence.hypotheses)]
            begin += len(mine)
            assert targets[id_].tolist() == tokens_of(sentence)[mine.index(max(mine))]
    assert begin == len(exported)
    report = read_json(root / "scores" / "target_spec.json")
    assert report["scores"] == sha256(tmp_path / "scores")


def test_chunks_and_processes_do_not_matter(data, teacher, tmp_path, capsys, monkeypatch):
    """The list and the selection are of sentences, not of chunks."""
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 13)
    where = ["--pseudo-targets", tmp_path / "s", "--beam", 3, "--engine", "fairseq"]
    words = ["generate", data, *where, "--teacher-path", teacher, "--threads", 1]
    main([str(word) for word in [*words, "--accept-unfinished", 1]])
    words = ["merge", data, *where[:2], "--nbest-list", tmp_path / "list"]
    main([str(word) for word in [*words, "--threads", 1, "--accept-unfinished", 1]])
    lines = (tmp_path / "list").read_text().splitlines()
    ids = [parse_item(line)[0] for line in lines]
    assert ids == sorted(ids)
    (tmp_path / "scores").write_text("".join(f"{s}\n" for s in random_scores(len(lines))))
    words = ["merge", data, *where[:2], "--select", "scores", "--scores", tmp_path / "scores"]
    for threads in (1, 2):
        flags = ["--threads", threads, "--databin", f"by-{threads}", "--accept-unfinished", 1]
        main([str(word) for word in [*words, *flags]])
    one, two = (files(tmp_path / "s" / f"by-{threads}") for threads in (1, 2))
    assert one == two


def test_a_training_takes_the_data_bin(merge, exported, root, data, tmp_path):
    task = ["--task", "translation_seqkd", "--criterion", "seq_kd", "--max-update", 1]
    task += ["--pseudo-targets", root, "--kd-targets", "scores"]
    output = train(data, tmp_path / "run", *task, fails=True)
    assert "Make it with fairseq-seqkd merge --select scores --scores FILE" in output
    (tmp_path / "scores").write_text("".join(f"{s}\n" for s in random_scores(len(exported))))
    merge("--select", "scores", "--scores", tmp_path / "scores")
    train(data, tmp_path / "run", *task)


class TestRefuses:
    @pytest.fixture
    def refusal(self, exported, data, root, tmp_path, refused):
        """refusal(lines): the message for a file of scores with these lines."""

        def call(lines):
            (tmp_path / "scores").write_text("".join(f"{line}\n" for line in lines))
            where = ["--pseudo-targets", root, "--threads", 1]
            message = refused(
                "merge", data, *where, "--select", "scores", "--scores", tmp_path / "scores"
            )
            assert not (root / "scores").exists()
            return message

        return call

    def test_too_few_scores(self, refusal, exported):
        lines = [1] * (len(exported) - 3)
        message = refusal(lines)
        counts = f"has {len(lines)} scores, and the exported list {len(exported)} hypotheses"
        id_ = parse_item(exported[-3])[0]
        rank = len([line for line in exported[:-2] if parse_item(line)[0] == id_])
        assert counts in message
        assert f"line {len(lines) + 1} would be hypothesis {rank} of sentence {id_}" in message

    def test_too_many_scores(self, refusal, exported):
        message = refusal([1] * (len(exported) + 2))
        assert f"has {len(exported) + 2} scores" in message
        assert f"line {len(exported) + 1} is the first too many" in message

    def test_a_list_that_lacks_a_line(self, refusal, exported):
        ids = [parse_item(line)[0] for line in exported]
        second = ids.index(next(id_ for id_ in ids if id_ != ids[0]))  # its first line
        message = refusal(exported[: second - 1] + exported[second:])
        assert f"has {len(exported) - 1} scores" in message
        expected = f"line {second} is of sentence {ids[second]}, expected of sentence {ids[0]}"
        assert expected in message

    def test_the_lines_of_a_list_in_another_order(self, refusal, exported):
        message = refusal(exported[::-1])
        first, last = (parse_item(exported[i])[0] for i in (0, -1))
        assert f"line 1 is of sentence {last}, expected of sentence {first}" in message

    @pytest.mark.parametrize("line", ["nan", "", "a b", "1 2"])
    def test_no_number(self, refusal, exported, line):
        message = refusal([*[1] * 4, line, *[1] * (len(exported) - 5)])
        assert f"scores:5: found {line!r}, expected one number" in message

    def test_flags(self, root, data, refused, tmp_path, halves):
        where = ["--pseudo-targets", root, "--threads", 1]
        message = refused("merge", data, *where, "--select", "scores")
        assert "--select scores needs --scores FILE" in message
        (tmp_path / "scores").write_text("1\n")
        scores = ["--scores", tmp_path / "scores"]
        message = refused("merge", data, *where, *scores)
        assert "--scores with --select best: expected --select scores" in message
        message = refused("merge", data, *where, "--select", "scores", "--scores", "nosuch")
        assert "no file 'nosuch'" in message
        where = ["--pseudo-targets", tmp_path / "new", "--threads", 1]
        message = refused("generate", data, *where, *scores, "--select", "scores")
        assert "there is no store at" in message and not (tmp_path / "new").exists()
        pair = [f"{halves[0]}:{halves[1]}", "--pseudo-targets", f"{root}:{root}"]
        message = refused("merge", *pair, *scores, "--select", "scores")
        assert "--scores with 2 stores: the file is of one" in message
