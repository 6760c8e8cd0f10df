import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import load_split, train
from fairseq.data import Dictionary, ListDataset, indexed_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.mixing import Part
from fairseq_seqkd.pseudo.pairs import write_sentences


def mixed(out, *parts):
    cli.main(["mix", str(out), *map(str, parts)])
    return out


def pairs_of(folder, name="train", reverse=False):
    """A counter of the pairs of a split, as tuples of token ids."""
    dataset = load_split(folder, name).dataset
    return Counter(
        (tuple(dataset.src[i].tolist()), tuple(dataset.tgt[i].tolist()))
        for i in range(len(dataset))
    )


def size_of(folder, suffix):
    return sum(path.stat().st_size for path in folder.glob(f"train.*.{suffix}"))


def test_every_pair_is_there_as_often_as_asked(data, store, tmp_path, capsys):
    folder = mixed(tmp_path / "mixture", f"{data}=2", store / "best", f"{store}/closest=3")
    expected = Counter()
    for part, copies in ((data, 2), (store / "best", 1), (store / "closest", 3)):
        for pair, n in pairs_of(part).items():
            expected[pair] += copies * n
    assert pairs_of(folder) == expected
    for split in ("valid", "test"):
        assert pairs_of(folder, split) == pairs_of(data, split)
    report = read_json(folder / "mixture.json")
    assert report["sentences"] == 160 * 6
    assert [part["first_id"] for part in report["parts"]] == [0, 320, 480]
    printed = capsys.readouterr().out
    assert f"320 from {data} (160 pairs, 2 times), ids from 0" in printed
    dataset, gold = load_split(folder).dataset, load_split(data).dataset
    for id_ in (0, 159, 160, 319):
        assert torch.equal(dataset.tgt[id_], gold.tgt[id_ % 160])


def test_copies_cost_index_entries_alone(data, tmp_path):
    once, often = (mixed(tmp_path / name, f"{data}={n}") for name, n in (("1", 1), ("50", 50)))
    assert size_of(often, "bin") == size_of(once, "bin") == size_of(data, "bin")
    # A pair's copy is a length of four bytes and a place of eight on both sides.
    assert size_of(often, "idx") - size_of(once, "idx") == 49 * 160 * 2 * 12


def test_stock_fairseq_trains_on_it(data, store, tmp_path):
    folder = mixed(tmp_path / "mixture", data, f"{store}/best=2")
    log = train(
        *[folder, tmp_path / "student", "--task", "translation", "--max-update", "2"],
        *["--criterion", "label_smoothed_cross_entropy", "--no-progress-bar"],
    )
    assert "train 480 examples" in log or "src-tgt 480 examples" in log


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=4), max_size=4),
            st.integers(1, 4),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_parts_and_copies(tmp_path_factory, parts):
    prefix = str(tmp_path_factory.mktemp("mix") / "train")
    datasets = [
        ListDataset([torch.tensor(row) for row in rows], [len(row) for row in rows])
        for rows, _ in parts
    ]
    ids = [np.tile(np.arange(len(rows)), n) for rows, n in parts]
    write_sentences(prefix, datasets, ids, 401)
    expected = [row for rows, n in parts for row in rows * n]
    if expected:
        found = indexed_dataset.MMapIndexedDataset(prefix)
        assert [found[i].tolist() for i in range(len(found))] == expected
        assert found.sizes.tolist() == [len(row) for row in expected]


class TestReverse:
    """Stores of the opposite direction."""

    @pytest.fixture(scope="class")
    def back(self, data, tmp_path_factory):
        """A store's data-bin of the direction tgt-src, with made-up targets."""
        store = tmp_path_factory.mktemp("back") / "store"
        text = tmp_path_factory.mktemp("text") / "targets.txt"
        split = load_split(data)
        lines = [split.task.source_dictionary.string(row) for row in split.dataset.src]
        text.write_text("\n".join(line or "x" for line in reversed(lines)) + "\n")
        flags = ["-s", "tgt", "-t", "src", "--pseudo-targets", str(store)]
        cli.main(["import", str(data), str(text), *flags])
        return store / "best"

    def test_generated_text_is_the_source(self, data, back, tmp_path):
        folder = mixed(tmp_path / "mixture", data, f"reverse:{back}")
        dataset, gold = load_split(folder).dataset, load_split(data).dataset
        assert len(dataset) == 320
        for id_ in (1, 20, 90):
            assert torch.equal(dataset.tgt[160 + id_], gold.tgt[id_])
            assert torch.equal(dataset.src[160 + id_], gold.src[159 - id_])
        assert read_json(folder / "mixture.json")["parts"][1]["reverse"]

    def test_may_come_first(self, data, back, tmp_path):
        """Its files are named src-tgt, as those that it was made from."""
        folder = mixed(tmp_path / "mixture", f"reverse:{back}", data)
        dataset, gold = load_split(folder).dataset, load_split(data).dataset
        assert torch.equal(dataset.tgt[20], gold.tgt[20])
        assert torch.equal(dataset.src[20], gold.src[139])

    def test_must_be_named_so(self, data, back, store, tmp_path, refused):
        message = refused("mix", tmp_path / "mixture", data, back)
        assert (
            "has pseudo-targets of the direction tgt-src, and the mixture is src-tgt" in message
        )
        assert f"it is reverse:{back}" in message
        message = refused("mix", tmp_path / "mixture", data, f"reverse:{store}/best")
        assert "which is that of the mixture. Leave reverse: out." in message


def test_stores_of_different_searches_are_noted(data, teacher, store, tmp_path, capsys):
    other = tmp_path / "greedy"
    flags = ["--beam", "1", "--engine", "fairseq", "--threads", "1", "--accept-unfinished", "1"]
    where = ["--teacher-path", str(teacher), "--pseudo-targets", str(other)]
    cli.main(["generate", str(data), *where, *flags])
    folder = mixed(tmp_path / "mixture", store / "best", other / "best")
    assert "note: the stores differ in their search" in capsys.readouterr().out
    assert read_json(folder / "mixture.json")["notes"] == ["the stores differ in their search"]


@pytest.fixture
def other_dictionary(data, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(data, folder)
    dictionary = Dictionary.load(str(folder / "dict.tgt.txt"))
    dictionary.symbols[10] = "another"
    dictionary.save(str(folder / "dict.tgt.txt"))
    return folder


class TestRefused:
    @pytest.mark.parametrize("count", ["0", "-1", "1.5", "two", ""])
    def test_counts(self, data, tmp_path, refused, count):
        message = refused("mix", tmp_path / "mixture", f"{data}={count}")
        assert f"the number of copies is {count!r}, expected a whole number" in message

    def test_other_dictionaries(self, data, other_dictionary, tmp_path, refused):
        message = refused("mix", tmp_path / "mixture", data, other_dictionary)
        assert "differ (target side" in message
        assert "at index 10" in message and "the other 'another'" in message
        assert not (tmp_path / "mixture").exists()

    def test_an_existing_folder(self, data, tmp_path, refused):
        assert "exists: expected the name of a new folder" in refused("mix", tmp_path, data)

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_part_without_pairs(self, data, tmp_path, refused, order):
        empty = shutil.copytree(data, tmp_path / "empty")
        (empty / "train.src-tgt.tgt.bin").write_bytes(b"")
        message = refused("mix", tmp_path / "mixture", *[data, empty][::order])
        assert f"'{empty}' has no training pairs" in message

    def test_a_part_that_is_not_there(self, data, tmp_path, refused):
        assert "no folder" in refused("mix", tmp_path / "mixture", data, tmp_path / "nothing")


def test_a_folder_may_have_an_equals_sign(data, tmp_path):
    folder = tmp_path / "a=2"
    shutil.copytree(data, folder)
    assert Part.parse(str(folder)) == Part(str(folder), 1)
    assert Part.parse(f"{folder}=3") == Part(str(folder), 3)
