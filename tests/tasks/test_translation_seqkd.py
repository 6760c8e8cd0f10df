import shutil

import pytest
from conftest import colons, load_split, logged, ranks, train
from conftest import seqkd_task as build
from omegaconf import OmegaConf

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.criterions.seq_inter import SeqInterConfig


def rows(target, task):
    """A padded batch as lists of tokens without padding."""
    return [[t for t in row if t != task.tgt_dict.pad()] for row in target.tolist()]


def targets_in(dataset):
    """The targets of a data set, as lists of token ids."""
    return [dataset[i]["target"].tolist() for i in range(len(dataset))]


def test_with_a_stock_criterion_it_is_stock(data, split):
    task = build(data, None)
    task.load_dataset("train", combine=True)
    assert targets_in(task.dataset("train")) == targets_in(split.dataset)


@pytest.mark.parametrize("selector", ["best", "closest"])
def test_training_targets_are_those_of_the_store(data, store, selector):
    task = build(data, store)
    task.use_targets(selector)
    task.load_dataset("train", combine=True)
    assert targets_in(task.dataset("train")) == targets_in(load_split(store / selector).dataset)


def test_unused_pseudo_targets_are_logged(data, store, caplog):
    build(data, store).load_dataset("train")
    assert "--pseudo-targets is not used" in caplog.text


def test_validation_stays_gold(data, store):
    task = build(data, store)
    task.use_targets("best")
    task.load_dataset("valid")
    assert targets_in(task.dataset("valid")) == targets_in(load_split(data, "valid").dataset)


@pytest.mark.parametrize("with_gold", [False, True])
def test_an_epoch_has_the_targets_of_its_data_bin(halves, half_stores, with_gold):
    task = build(colons(*halves), colons(*half_stores), accept_unfinished=0.5)
    task.use_targets("best", with_gold=with_gold)
    for epoch in (1, 2, 3):
        which = (epoch - 1) % 2
        task.load_dataset("train", epoch=epoch, combine=True)
        dataset = task.dataset("train")
        assert targets_in(dataset) == targets_in(
            load_split(half_stores[which] / "best").dataset
        )
        if with_gold:
            gold = load_split(half_stores[which] / "best").dataset.src
            assert [dataset.gold.src[i].tolist() for i in range(len(dataset))] == [
                tokens.tolist() for tokens in gold
            ]


def test_stores_in_another_order(halves, half_stores):
    task = build(colons(*halves), colons(*half_stores[::-1]))
    task.use_targets("best")
    with pytest.raises(ValueError, match="was made from other data.*\n.*data.sentences: found"):
        task.load_dataset("train")


class TestWithGold:
    @pytest.fixture
    def task(self, data, store):
        """A task with best targets, and gold targets in addition."""
        task = build(data, store)
        task.use_targets("best", with_gold=True)
        task.load_dataset("train", combine=True)
        return task

    def test_gold_follows_its_sentence_through_sorting(self, task, split):
        dataset, gold = task.dataset("train"), split.dataset
        ids = [3, 150, 6, 10, 42, 7]
        batch = dataset.collater([dataset[i] for i in ids])
        assert sorted(batch["id"].tolist()) == sorted(ids) != batch["id"].tolist()
        expected = [gold.tgt[i].tolist() for i in batch["id"].tolist()]
        assert rows(batch["gold"]["target"], task) == expected
        shifted = [[row[-1], *row[:-1]] for row in expected]
        assert rows(batch["gold"]["prev_output_tokens"], task) == shifted

    def test_batches_count_the_gold_tokens_too(self, task, split, store):
        dataset = task.dataset("train")
        gold, best = split.dataset, load_split(store / "best").dataset
        for i in range(len(dataset)):
            longest = max(gold.num_tokens(i), best.num_tokens(i))
            assert dataset.num_tokens(i) == longest
        indices = dataset.ordered_indices()
        batches = dataset.batch_by_size(indices, max_tokens=200)
        assert sorted(i for b in batches for i in b) == list(range(len(dataset)))
        for batch in batches:
            assert len(batch) * max(dataset.num_tokens(i) for i in batch) <= 200

    def test_too_long_gold_is_filtered(self, task, split):
        dataset = task.dataset("train")
        limit = 9
        kept, removed = dataset.filter_indices_by_size(dataset.ordered_indices(), (1000, limit))
        gold, best = split.dataset.tgt_sizes, dataset.dataset.tgt_sizes
        fits = [i for i in range(160) if max(gold[i], best[i]) <= limit]
        assert sorted(kept) == fits
        assert sorted(removed) == sorted(set(range(160)) - set(fits))

    def test_empty_batch(self, task):
        assert task.dataset("train").collater([]) == {}


@pytest.fixture(scope="module")
def source_only(data, teacher, tmp_path_factory):
    """A data-bin without training targets, and its store."""
    folder = tmp_path_factory.mktemp("source-only")
    shutil.copytree(data, folder / "data")
    for suffix in ("bin", "idx"):
        (folder / "data" / f"train.src-tgt.tgt.{suffix}").unlink()
    words = ["generate", folder / "data", "--pseudo-targets", folder / "store"]
    words += ["--teacher-path", teacher, "--engine", "fairseq", "--threads", 1]
    cli.main([str(word) for word in words])
    return folder / "data", folder / "store"


class TestWithoutGold:
    """Rows without a gold target are left out of gold terms, and counted."""

    def test_an_empty_target_is_padding_alone(self, data, store, caplog):
        task = build(data, store)
        task.use_targets("best", with_gold=True)
        task.load_dataset("train", combine=True)
        dataset, ids = task.dataset("train"), [3, 42, 10]
        dataset.gold.tgt = [tokens for tokens in dataset.gold.tgt]
        dataset.gold.tgt[42] = dataset.gold.tgt[42][-1:]
        batch = dataset.collater([dataset[i] for i in ids])
        lengths = {i: len(row) for i, row in zip(batch["id"].tolist(), gold_rows(batch, task))}
        assert lengths == {i: len(dataset.gold.tgt[i]) if i != 42 else 0 for i in ids}
        row = batch["id"].tolist().index(42)
        first = batch["gold"]["prev_output_tokens"][row, 0]
        assert first == task.tgt_dict.eos()  # no row of padding: its attention would be NaN

    def test_no_sentence_has_gold(self, source_only, caplog):
        task = build(*source_only)
        task.use_targets("best", with_gold=True)
        task.load_dataset("train", combine=True)
        dataset = task.dataset("train")
        n = len(dataset)
        assert 100 < n < 160
        message = f"{n} of {n} sentences have no gold target: --gold-weight and"
        assert message in caplog.text
        batch = dataset.collater([dataset[i] for i in range(9)])
        assert gold_rows(batch, task) == [[]] * 9
        assert dataset.num_tokens(3) == dataset.dataset.num_tokens(3)

    def test_a_training_counts_them(self, source_only, data, store, tmp_path):
        loss = ["--task", "translation_seqkd", "--criterion", "seq_kd", "--max-update", 2]
        for (folder, pseudo), percent in ((source_only, 100), ((data, store), 0)):
            where = [folder, tmp_path / str(percent), "--pseudo-targets", pseudo]
            output = train(*where, *loss, "--gold-weight", 0.3)
            steps = logged(output, "train_inner")
            assert [float(step["no_gold"]) for step in steps] == [percent] * 2
            assert all(float(step["loss"]) > 0 for step in steps)

    def test_online_is_refused(self, source_only, teacher):
        task = build(source_only[0], "online", teacher_path=str(teacher))
        task.use_targets("best")
        message = "--pseudo-targets online: the training set in .* has sources only"
        with pytest.raises(ValueError, match=message):
            task.load_dataset("train")


def gold_rows(batch, task):
    return rows(batch["gold"]["target"], task)


def test_criterion_tells_the_task(data, store):
    task = build(data, store)
    config = SeqInterConfig(gold_weight=0.5, sentence_avg=False)
    task.build_criterion(OmegaConf.create({**vars(config), "_name": "seq_inter"}))
    assert (task.targets, task.with_gold) == ("closest", True)


class TestRefuses:
    def test_no_folder_for_pseudo_targets(self, data):
        task = build(data, None)
        task.use_targets("best")
        with pytest.raises(ValueError, match="needs --pseudo-targets DIR"):
            task.load_dataset("train")

    @pytest.mark.parametrize("n_data, n_stores", [(2, 1), (1, 2), (2, 3)])
    def test_another_number_of_stores(self, data, store, n_data, n_stores):
        task = build(":".join([str(data)] * n_data), ":".join([str(store)] * n_stores))
        task.use_targets("best")
        message = f"found {n_stores}, expected {n_data}: one folder for each data-bin in"
        with pytest.raises(ValueError, match=message):
            task.load_dataset("train")

    def test_alignments(self, data, store):
        task = build(data, store, load_alignments=True)
        task.use_targets("best")
        with pytest.raises(ValueError, match="--load-alignments"):
            task.load_dataset("train")

    def test_a_second_training_file(self, data, store, tmp_path):
        shutil.copytree(data, tmp_path / "data")
        for side in ("src", "tgt"):
            for suffix in ("bin", "idx"):
                name = f"src-tgt.{side}.{suffix}"
                shutil.copy(data / f"valid.{name}", tmp_path / "data" / f"train1.{name}")
        task = build(tmp_path / "data", store, upsample_primary=1)
        task.use_targets("best")
        with pytest.raises(ValueError, match="has train1 files"):
            task.load_dataset("train", combine=True)

    def test_raw_text(self, text, data, store, tmp_path):
        for name in ("dict.src.txt", "dict.tgt.txt"):
            shutil.copy(data / name, tmp_path)
        for split in ("train", "valid"):
            for side in ("src", "tgt"):
                shutil.copy(text / f"{split}.{side}", tmp_path / f"{split}.src-tgt.{side}")
        task = build(tmp_path, store, dataset_impl="raw")
        task.use_targets("best")
        with pytest.raises(FileNotFoundError, match="no binarised 'train' split"):
            task.load_dataset("train")


def test_truncated_source_keeps_its_pair(data, store):
    task = build(data, store, truncate_source=True, max_source_positions=4)
    task.use_targets("best")
    task.load_dataset("train", combine=True)
    dataset, best = task.dataset("train"), load_split(store / "best").dataset
    for i in range(len(dataset)):
        assert dataset[i]["source"].tolist()[:-1] == best.src[i].tolist()[:-1][:3]
        assert dataset[i]["target"].tolist() == best.tgt[i].tolist()


def test_two_ranks_translate_together(data, teacher, store, tmp_path):
    """With the real command, each rank a process; one process makes the same store."""
    ranks(
        *[2, data, tmp_path / "run", "--task", "translation_seqkd"],
        *["--criterion", "seq_kd", "--teacher-path", teacher, "--teacher-beam", "4"],
        *["--pseudo-targets", tmp_path / "store", "--max-update", "1"],
        *["--teacher-engine", "fairseq"],
    )
    assert targets_in(load_split(tmp_path / "store" / "best").dataset) == targets_in(
        load_split(store / "best").dataset
    )


def test_no_rank_waits_for_missing_chunks_without_a_teacher(data, store, tmp_path):
    shutil.copytree(store / "nbest", tmp_path / "store" / "nbest")
    shutil.copy(store / "manifest.json", tmp_path / "store")
    next((tmp_path / "store" / "nbest").glob("chunk-00000-*.npz")).unlink()
    outputs = ranks(
        *[2, data, tmp_path / "run", "--task", "translation_seqkd", "--max-update", "1"],
        *["--criterion", "seq_kd", "--pseudo-targets", tmp_path / "store"],
        fails=True,
    )
    assert all("1 of 1 chunks are missing" in output for output in outputs)
