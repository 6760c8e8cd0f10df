import os
import shutil

import numpy as np
import pytest
from conftest import load_split

from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.backends.fairseq import FairseqBackend
from fairseq_seqkd.pseudo.generate import prepare_databin, translate
from fairseq_seqkd.pseudo.select import Best, Closest
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.shards import read_json, sha256
from fairseq_seqkd.teacher import SearchOptions, load_teacher

EMPTY, LONG = 6, 10  # lines of the training source, see the fixture ``text``
NO_SEARCH = {"beam": None, "nbest": None, "lenpen": None}


@pytest.fixture(scope="module")
def loaded(teacher):
    return load_teacher(str(teacher))


@pytest.fixture
def prepare(data, teacher, loaded, tmp_path):
    """prepare_databin with the usual arguments, where nothing else is said."""

    def call(
        selector=None, search=None, teacher_path=str(teacher), gold=None, root=None, **share
    ):
        return prepare_databin(
            root or str(tmp_path / "store"),
            gold or load_split(data),
            selector or Best(),
            {**NO_SEARCH, **(search or {})},
            teacher_path,
            lambda: loaded,
            **share,
        )

    return call


def all_nbest(root, n_chunks):
    store = PseudoTargetStore(str(root))
    return {s.id: s for i in range(n_chunks) for s in store.read_chunk(i)}


def test_targets_are_the_teachers_translations_of_their_own_source(prepare, data, loaded):
    gold = load_split(data).dataset
    targets = load_split(prepare()).dataset.tgt
    search = SearchOptions(beam=5)
    for id_ in (0, 3, 159):
        sample = gold.collater([gold[id_]])
        best = loaded.generate(sample["net_input"], search)[0][0]["tokens"]
        assert targets[id_].tolist() == best.tolist()


def test_what_cannot_be_translated_keeps_gold_and_is_counted(prepare, data, tmp_path, caplog):
    with caplog.at_level("INFO"):
        targets = load_split(prepare()).dataset.tgt
    gold = load_split(data).dataset.tgt
    for id_ in (EMPTY, LONG):
        assert targets[id_].tolist() == gold[id_].tolist()
    counts = read_json(tmp_path / "store" / "nbest" / "sums.json")["sentences"]
    assert counts == {"translated": 158, "empty source": 1, "source too long": 1}
    assert "1 sentences keep their gold target: empty source" in caplog.text
    assert "1 sentences keep their gold target: source too long" in caplog.text


@pytest.mark.parametrize("selector, beam", [("best", 5), ("closest", 35)])
def test_default_beam_is_kim_and_rushs(prepare, data, tmp_path, selector, beam):
    small = shrink(load_split(data), 3)
    choose = Best() if selector == "best" else Closest(small.dataset.tgt_dict)
    prepare(choose, gold=small)
    search = PseudoTargetStore(str(tmp_path / "store")).manifest["search"]
    assert (search["beam"], search["nbest"]) == (beam, beam)


def shrink(gold, size):
    """The split with its first sentences only."""
    dataset = gold.dataset
    dataset.src, dataset.tgt = [
        [side[i] for i in range(size)] for side in (dataset.src, dataset.tgt)
    ]
    dataset.src_sizes, dataset.tgt_sizes = (
        dataset.src_sizes[:size],
        dataset.tgt_sizes[:size],
    )
    return gold


def test_one_nbest_list_serves_both_selections(prepare, data, tmp_path):
    prepare(search={"beam": 4})
    sums = sha256(tmp_path / "store" / "nbest" / "chunk-00000.npz")
    closest = prepare(Closest(load_split(data).dataset.tgt_dict), teacher_path=None)
    assert sha256(tmp_path / "store" / "nbest" / "chunk-00000.npz") == sums
    best, closest = (load_split(p).dataset.tgt for p in (tmp_path / "store" / "best", closest))
    assert any(best[i].tolist() != closest[i].tolist() for i in range(160))
    lists = all_nbest(tmp_path / "store", 1)
    assert all(len(lists[i].hypotheses) == 4 for i in range(160) if i not in (EMPTY, LONG))


def test_shards_and_batches_keep_every_id_its_own_source(
    data, teacher, loaded, tmp_path, monkeypatch
):
    monkeypatch.setattr(generate, "CHUNK_SIZE", 13)
    results = []
    for world_size, max_tokens in ((1, 20000), (2, 20000), (5, 300)):
        monkeypatch.setattr(FairseqBackend, "MAX_TOKENS", max_tokens)
        root, gold = tmp_path / f"{world_size}", load_split(data)
        store = generate.open_store(str(root), gold, "best", NO_SEARCH, str(teacher))
        for rank in reversed(range(world_size)):
            translate(store, gold, str(teacher), lambda: loaded, rank, world_size)
        lists = all_nbest(root, 13)
        assert sorted(lists) == list(range(160))
        results.append({i: [t.tolist() for t, _ in s.hypotheses] for i, s in lists.items()})
    assert results[0] == results[1] == results[2]


def test_goes_on_with_the_chunks_that_are_missing(data, teacher, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "CHUNK_SIZE", 50)
    gold = load_split(data)
    store = generate.open_store(str(tmp_path), gold, "best", NO_SEARCH, str(teacher))
    translate(store, gold, str(teacher), lambda: loaded, 0, 1)
    sums = [sha256(store.chunk_path(i)) for i in range(4)]
    untouched = np.load(store.chunk_path(0))["ids"]
    os.unlink(store.chunk_path(2))
    translate(store, gold, str(teacher), lambda: loaded, 0, 1)
    assert [sha256(store.chunk_path(i)) for i in range(4)] == sums
    assert np.array_equal(np.load(store.chunk_path(0))["ids"], untouched)


class TestRefuses:
    def test_no_store_and_no_teacher(self, prepare):
        with pytest.raises(FileNotFoundError, match="no store at .*--teacher-path"):
            prepare(teacher_path=None)

    def test_unfinished_store_and_no_teacher(self, prepare, tmp_path):
        prepare()
        shutil.rmtree(tmp_path / "store" / "best")
        (tmp_path / "store" / "nbest" / "chunk-00000.npz").unlink()
        with pytest.raises(FileNotFoundError, match="1 of 1 chunks are missing"):
            prepare(teacher_path=None)

    def test_other_split(self, store, prepare, data):
        with pytest.raises(ValueError, match="data.split: found train, expected valid"):
            prepare(root=str(store), gold=load_split(data, "valid"))

    def test_other_data(self, store, prepare, data, tmp_path):
        other = tmp_path / "data"
        shutil.copytree(data, other)
        for suffix in ("bin", "idx"):
            for side in ("src", "tgt"):
                name = f"src-tgt.{side}.{suffix}"
                shutil.copy(other / f"valid.{name}", other / f"train.{name}")
        message = "data.sentences: found 160, expected 24\n.*train.src-tgt.src.bin: found"
        with pytest.raises(ValueError, match=message):
            prepare(root=str(store), gold=load_split(other))

    def test_other_dictionary(self, store, prepare, data, tmp_path):
        other = tmp_path / "data"
        shutil.copytree(data, other)
        with open(other / "dict.tgt.txt", "a") as file:
            file.write("more 1\n")
        with pytest.raises(ValueError, match="dictionaries.dict.tgt.txt: found"):
            prepare(root=str(store), gold=load_split(other))

    def test_other_teacher(self, store, prepare, teacher, tmp_path):
        other = tmp_path / "other.pt"
        other.write_bytes(teacher.read_bytes() + b"\0")
        with pytest.raises(ValueError, match="teacher: found"):
            prepare(root=str(store), teacher_path=str(other))

    def test_other_search(self, store, prepare):
        with pytest.raises(ValueError, match="search.beam: found 4, expected 5"):
            prepare(root=str(store), search={"beam": 5})

    @pytest.mark.parametrize("search", [{"nbest": 6}, {"beam": 3, "nbest": 4}, {"nbest": 0}])
    def test_more_hypotheses_than_the_beam_has(self, prepare, tmp_path, search):
        with pytest.raises(ValueError, match=f"kept is {search['nbest']} .--teacher-nbest"):
            prepare(search=search)
        assert not (tmp_path / "store").exists()

    def test_other_way_of_choosing(self, store, prepare, data):
        closest = Closest(load_split(data).dataset.tgt_dict, "@@ ")
        with pytest.raises(ValueError, match="remove_bpe: found None, expected @@ "):
            prepare(closest, root=str(store))

    def test_choosing_from_a_list_of_one(self, prepare, data):
        prepare(search={"nbest": 1})
        with pytest.raises(ValueError, match="nothing to choose 'closest' from"):
            prepare(Closest(load_split(data).dataset.tgt_dict))


def test_a_deleted_teacher_does_not_stop_the_use_of_a_finished_store(store, prepare):
    assert prepare(root=str(store), teacher_path="deleted.pt").endswith("best")
