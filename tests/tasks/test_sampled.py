"""``--kd-targets sampled``: another hypothesis of the list in every epoch."""

import shutil
from collections import Counter

import numpy as np
import pytest
from conftest import RESUMES, all_nbest, logged, ranks, tokens_of, train
from conftest import seqkd_task as build

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json

TASK = ["--task", "translation_seqkd", "--criterion", "seq_kd", "--kd-targets", "sampled"]


@pytest.fixture
def root(store, tmp_path):
    """A copy of the store of 4-best lists."""
    return shutil.copytree(store, tmp_path / "store")


@pytest.fixture
def load(data, root):
    """load(epoch, with_gold, temperature): the data set of an epoch."""

    def call(epoch=1, with_gold=False, temperature=None, **values):
        task = build(data, root, **values)
        task.use_targets("sampled", with_gold, temperature)
        task.load_dataset("train", epoch=epoch, combine=True)
        dataset = task.dataset("train")
        dataset.set_epoch(epoch)
        return dataset

    return call


def targets_in(dataset):
    return [dataset[i]["target"].tolist() for i in range(len(dataset))]


def test_targets_are_hypotheses_of_the_list_and_change(load, root, split):
    dataset, lists, seen = load(), all_nbest(root), Counter()
    assert len(dataset) == 160
    for epoch in (1, 2, 3):
        dataset.set_epoch(epoch)
        targets = targets_in(dataset)
        for id_, target in enumerate(targets):
            assert dataset[id_]["id"] == id_
            assert dataset[id_]["source"].tolist() == split.dataset.src[id_].tolist()
            allowed = tokens_of(lists[id_]) or [split.dataset.tgt[id_].tolist()]
            assert target in allowed
            seen[id_, tuple(target)] += 1
    assert len(seen) > 190
    dataset.set_epoch(1)
    assert targets_in(dataset) == targets_in(load(epoch=1))
    assert targets_in(load(epoch=2)) != targets_in(load(epoch=1))
    assert targets_in(load(seed=2)) != targets_in(load())
    totals = [score * len(tokens) for tokens, score in lists[1].hypotheses]
    best = tokens_of(lists[1])[int(np.argmax(totals))]
    assert targets_in(load(temperature=1e-3))[1] == best


def test_batches_are_of_the_epochs_lengths(load):
    dataset = load(epoch=3)
    lengths = np.array([[len(dataset[i][s]) for s in ("source", "target")] for i in range(160)])
    assert dataset.sizes.tolist() == lengths.tolist()
    assert [dataset.size(i) for i in range(9)] == [tuple(row) for row in lengths[:9]]
    longest = lengths.max(1).tolist()
    assert dataset.num_tokens_vec(np.arange(160)).tolist() == longest
    order = dataset.ordered_indices()
    assert sorted(order) == list(range(160))
    assert (np.diff(lengths[order, 0]) >= 0).all()
    for batch in dataset.batch_by_size(order, max_tokens=100):
        assert len(batch) * max(longest[i] for i in batch) <= 100
    kept, removed = dataset.filter_indices_by_size(order, (1000, 8))
    assert sorted(kept) == [i for i in range(160) if lengths[i, 1] <= 8] and len(removed) > 0
    assert not dataset.can_reuse_epoch_itr_across_epochs


def test_gold_targets_beside_them(load, split):
    dataset = load(with_gold=True)
    batch = dataset.collater([dataset[i] for i in (3, 42, 10)])
    for id_, row in zip(batch["id"].tolist(), batch["gold"]["target"].tolist()):
        gold = split.dataset.tgt[id_].tolist()
        assert row[: len(gold)] == gold
    assert not dataset.can_reuse_epoch_itr_across_epochs
    assert dataset.num_tokens(3) >= len(split.dataset.tgt[3])


def losses(output):
    return [step["loss"] for step in logged(output, "train_inner")]


@RESUMES
def test_any_number_of_workers_and_a_resume(data, root, tmp_path):
    """Three epochs; the resume is in the middle of the second."""
    run = [*TASK, "--pseudo-targets", root, "--max-tokens", 300, "--max-epoch", 3]
    run += ["--save-interval-updates", 3, "--sampled-temperature", 2]
    one = train(data, tmp_path / "one", *run, "--num-workers", 1)
    three = train(data, tmp_path / "three", *run, "--num-workers", 3)
    assert losses(one) == losses(three)
    saved = sorted((tmp_path / "one").glob("checkpoint_2_*.pt"))
    number = int(saved[0].stem.split("_")[-1])
    rest = train(data, tmp_path / "rest", *run, "--restore-file", saved[0])
    assert losses(rest) == losses(one)[number:] and len(losses(rest)) > 5


def test_two_ranks(data, root, tmp_path):
    """The list is built by rank 0, and both train on their part of the same draw."""
    outputs = ranks(
        *(2, data, tmp_path / "two", *TASK, "--pseudo-targets", root),
        *("--max-epoch", 1, "--max-tokens", 150),
    )
    one = train(
        *(data, tmp_path / "one", *TASK, "--pseudo-targets", root, "--max-epoch", 1),
        *("--max-tokens", 150, "--update-freq", 2),
    )
    found = [step for output in outputs for step in logged(output, "train")]
    expected = logged(one, "train")
    assert [float(step["train_wpb"]) for step in found] == [
        pytest.approx(float(expected[0]["train_wpb"]), rel=0.02)
    ] * len(found)


def test_merge_builds_the_lists_beforehand(data, root, capsys):
    words = ["merge", data, "--pseudo-targets", root, "--select", "sampled", "--threads", 1]
    main([str(word) for word in words])
    output = capsys.readouterr().out
    assert "kept per sentence: all" in output
    assert "--criterion seq_kd --kd-targets sampled --pseudo-targets" in output
    report = read_json(root / "sampled" / "target_spec.json")
    assert {"list-ids.npy", "list-lprobs.npy"} < set(report["sha256"])


def test_a_damaged_list_is_refused(load, root):
    load()
    path = root / "sampled" / "list-lprobs.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="list-lprobs.npy' is missing, damaged or was changed"):
        load()


class TestRefuses:
    @pytest.mark.parametrize(
        "flags, message",
        [
            (["--kd-cache", "x"], "--kd-cache is 'x' with --kd-targets sampled: a cache has"),
            (["--pseudo-targets", "online", "--teacher-path", "x"], "need a store"),
            (["--sampled-temperature", 0], "--sampled-temperature is 0.0, expected a number"),
            (["--sampled-temperature", "nan"], "--sampled-temperature is nan"),
            (["--sampled-temperature", "inf"], "--sampled-temperature is inf"),
            (
                ["--kd-targets", "best", "--sampled-temperature", 2],
                "expected --kd-targets sampled beside it",
            ),
        ],
    )
    def test_flags(self, data, root, tmp_path, flags, message):
        run = [*TASK, "--pseudo-targets", root, "--kd-alpha", 0.5, "--max-update", 1]
        if "online" not in flags:
            run += ["--teacher-path", "x"]
        assert message in train(data, tmp_path / "run", *run, *flags, fails=True)

    def test_the_data_bin_in_place_of_the_store(self, data, root, tmp_path, load):
        load()
        run = [*TASK, "--pseudo-targets", root / "sampled", "--max-update", 1]
        output = train(data, tmp_path / "run", *run, fails=True)
        assert "is of --kd-targets sampled: it has several pairs per sentence" in output

    def test_what_does_not_go_with_lists(self, data, root, refused, tmp_path):
        where = ["--pseudo-targets", root, "--threads", 1, "--select", "sampled"]
        message = refused("merge", data, *where, "--keep", 2)
        assert "--keep 2 with 'sampled' targets" in message
        filters = ["--filter-copies", "--filter-action", "drop"]
        message = refused("merge", data, *where, *filters)
        assert "--filter-action drop with 'sampled' targets" in message
        (tmp_path / "list").write_text(
            "".join(f"{i} ||| a ||| -1\n{i} ||| b ||| -2\n" for i in range(160))
        )
        where = ["--pseudo-targets", tmp_path / "n", "--threads", 1, "--select", "sampled"]
        message = refused("import", data, tmp_path / "list", *where)
        assert "'sampled' targets: the store" in message and "was imported" in message
