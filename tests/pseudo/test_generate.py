import os
import shutil

import pytest
from conftest import BEST, EMPTY, LONG, all_nbest, load_split, recipe_with, with_sentences

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.generate import Recipe, open_store, translate
from fairseq_seqkd.pseudo.selectors import build_selector
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec


@pytest.fixture
def recipe(teacher, loaded):
    return recipe_with(teacher, loaded)


def test_lists_are_the_teachers_translations_of_their_own_source(
    data, recipe, loaded, tmp_path
):
    split = load_split(data)
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    lists = all_nbest(store.root)
    for id_ in (0, 3, 42, 159):
        sample = split.dataset.collater([split.dataset[id_]])
        expected = loaded.generate(sample["net_input"], SearchOptions(beam=5, nbest=5))[0]
        finished = [one["tokens"].tolist() for one in expected if len(one["tokens"]) < 60]
        assert [t.tolist() for t, _ in lists[id_].hypotheses] == finished
    assert sum(bool(lists[id_].hypotheses) for id_ in (0, 3, 42, 159)) >= 2
    assert lists[EMPTY].status == "empty source"
    assert lists[LONG].status == "source too long"


@pytest.mark.parametrize("selector, beam", [("best", 5), ("closest", 35)])
def test_default_beam_is_kim_and_rushs(data, recipe, tmp_path, selector, beam):
    split = load_split(data)
    spec = TargetSpec(build_selector(selector, split.dataset.tgt_dict))
    store = open_store(str(tmp_path), split, spec, recipe)
    search = store.manifest["search"]
    assert (search["beam"], search["nbest"]) == (beam, beam)


def test_shards_and_batches_keep_every_id_its_own_source(
    data, teacher, loaded, tmp_path, monkeypatch
):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 13)
    results = []
    for world_size, max_tokens in ((1, 4000), (2, 4000), (5, 60)):
        recipe = recipe_with(teacher, loaded, max_tokens=max_tokens)
        split = load_split(data)
        store = open_store(str(tmp_path / f"{world_size}"), split, BEST, recipe)
        for rank in reversed(range(world_size)):
            translate(store, split, recipe, Worker(rank, world_size))
        lists = all_nbest(store.root)
        assert sorted(lists) == list(range(160))
        results.append({i: [t.tolist() for t, _ in s.hypotheses] for i, s in lists.items()})
    assert results[0] == results[1] == results[2]


def test_goes_on_with_the_chunks_that_are_missing(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 50)
    split = load_split(data)
    store = open_store(str(tmp_path), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    before = {path: os.stat(path).st_mtime_ns for path in store.chunks.find().values()}
    os.unlink(store.chunks.find()[2])
    translate(store, split, recipe, Worker())
    after = {path: os.stat(path).st_mtime_ns for path in store.chunks.find().values()}
    assert list(before) == list(after)  # the names carry the content's sums
    assert [before[path] != after[path] for path in before] == [False, False, True, False]


@pytest.mark.parametrize("place", [0, 40, -1])
def test_one_byte_flipped_in_a_chunk_is_found_and_mended(data, recipe, tmp_path, place, caplog):
    split = load_split(data)
    store = open_store(str(tmp_path), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    path = store.chunks.find()[0]
    content = bytearray(open(path, "rb").read())
    whole = bytes(content)
    content[place] ^= 1
    with open(path, "wb") as file:
        file.write(content)
    translate(store, split, recipe, Worker())
    assert open(path, "rb").read() == whole
    assert "was damaged: it is made again" in caplog.text


def test_the_next_chunk_is_begun_before_one_is_written():
    events = []

    def begin(i):
        events.append(f"begin {i}")
        return i

    for i in generate.one_ahead(begin(i) for i in range(3)):
        events.append(f"write {i}")
    assert events == [f"{what}" for what in _expected_order()]
    assert list(generate.one_ahead([])) == []
    assert list(generate.one_ahead([7])) == [7]


def _expected_order():
    return ["begin 0", "begin 1", "write 0", "begin 2", "write 1", "write 2"]


class TestSampling:
    @pytest.fixture
    def sampled(self, data, teacher, loaded, tmp_path):
        def call(name, max_tokens=None, **search):
            options = {"sampling": True, "beam": 3, **search}
            recipe = recipe_with(teacher, loaded, options, max_tokens=max_tokens)
            split = load_split(data)
            store = open_store(str(tmp_path / name), split, BEST, recipe)
            translate(store, split, recipe, Worker())
            return {
                i: [t.tolist() for t, _ in one.hypotheses]
                for i, one in all_nbest(store.root).items()
            }

        return call

    @pytest.mark.parametrize("how", [{}, {"sampling_topk": 4}, {"sampling_topp": 0.8}])
    def test_a_sample_does_not_depend_on_its_batch(self, sampled, how):
        assert sampled("large", **how) == sampled("small", max_tokens=30, **how)

    def test_another_seed_draws_others(self, sampled):
        assert sampled("one", seed=1) != sampled("two", seed=2)

    def test_topk_of_one_is_greedy(self, sampled, data, loaded):
        samples = sampled("k1", sampling_topk=1)
        id_ = next(id_ for id_ in range(160) if samples[id_])
        dataset = load_split(data).dataset
        sample = dataset.collater([dataset[id_]])
        greedy = loaded.generate(sample["net_input"], SearchOptions(beam=1))[0][0]["tokens"]
        assert samples[id_] == [greedy.tolist()] * 3


class TestRefuses:
    def test_no_store_and_no_teacher(self, data, tmp_path):
        with pytest.raises(FileNotFoundError, match="no store at .*--teacher-path"):
            open_store(str(tmp_path / "store"), load_split(data), BEST, Recipe())

    def test_unfinished_store_and_no_teacher(self, data, recipe, tmp_path):
        split = load_split(data)
        store = open_store(str(tmp_path), split, BEST, recipe)
        with pytest.raises(FileNotFoundError, match="1 of 1 chunks are missing"):
            translate(store, split, Recipe(), Worker())

    def test_other_split(self, store, data):
        with pytest.raises(ValueError, match="data.split: found train, expected valid"):
            open_store(str(store), load_split(data, "valid"), BEST, Recipe())

    def test_other_data(self, store, data, tmp_path):
        other = tmp_path / "data"
        shutil.copytree(data, other)
        for suffix in ("bin", "idx"):
            for side in ("src", "tgt"):
                name = f"src-tgt.{side}.{suffix}"
                shutil.copy(other / f"valid.{name}", other / f"train.{name}")
        message = "data.sentences: found 160, expected 24\n.*train.src-tgt.src.bin: found"
        with pytest.raises(ValueError, match=message):
            open_store(str(store), load_split(other), BEST, Recipe())

    def test_other_dictionary(self, store, data, tmp_path):
        other = tmp_path / "data"
        shutil.copytree(data, other)
        with open(other / "dict.tgt.txt", "a") as file:
            file.write("more 1\n")
        with pytest.raises(ValueError, match="dictionaries.dict.tgt.txt: found"):
            open_store(str(store), load_split(other), BEST, Recipe())

    def test_other_teacher(self, store, data, teacher, tmp_path):
        other = tmp_path / "other.pt"
        other.write_bytes(teacher.read_bytes() + b"\0")
        with pytest.raises(ValueError, match="teacher: found"):
            open_store(str(store), load_split(data), BEST, Recipe(str(other)))

    @pytest.mark.parametrize(
        "recipe, message",
        [
            (Recipe(search={"beam": 5}), "search.beam: found 4, expected 5"),
            (Recipe(search={"sampling": True}), "search.sampling: found False, expected True"),
            (Recipe(engine={"name": "ctranslate2"}), "engine.name: found fairseq, expected"),
            (Recipe(engine={"compute_type": "float16"}), "compute_type: found float32"),
        ],
    )
    def test_other_search_or_backend(self, store, data, recipe, message):
        with pytest.raises(ValueError, match=message):
            open_store(str(store), load_split(data), BEST, recipe)

    @pytest.mark.parametrize(
        "search, message",
        [
            ({"nbest": 6}, "kept is 6 .nbest., expected from 1 to the beam, which is 5"),
            ({"beam": 3, "nbest": 4}, "kept is 4 .nbest., .* which is 3"),
            ({"nbest": 0}, "kept is 0"),
            ({"sampling_topk": 3}, "need sampling as well"),
            ({"sampling": True, "beam": 3, "nbest": 2}, "of samples all are kept"),
            ({"max_len_a": -1.0}, "the longest target is -1.0"),
            ({"sampling": True, "sampling_topk": 0}, "sampling-topk is 0"),
            ({"sampling": True, "sampling_topp": 1.5}, "sampling-topp is 1.5"),
            ({"sampling": True, "sampling_topk": 2, "sampling_topp": 0.5}, "one of them"),
        ],
    )
    def test_a_search_that_cannot_be(self, data, teacher, loaded, tmp_path, search, message):
        recipe = recipe_with(teacher, loaded, search)
        with pytest.raises(ValueError, match=message):
            open_store(str(tmp_path / "store"), load_split(data), BEST, recipe)
        assert not (tmp_path / "store").exists()


def test_a_deleted_teacher_does_not_stop_the_use_of_a_finished_store(store, data):
    split = load_split(data)
    found = open_store(str(store), split, BEST, Recipe("deleted.pt"))
    translate(found, split, Recipe("deleted.pt"), Worker())


def test_with_a_full_disk_nothing_is_left_and_it_goes_on(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 50)
    split = load_split(data)
    store = open_store(str(tmp_path), split, BEST, recipe)
    written, fsync = [], os.fsync

    def full(handle):
        if len(written) >= 4:  # a file and its folder, two chunks
            raise OSError(28, "No space left on device")
        written.append(handle)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: .*chunk-00002") as error:
        translate(store, split, recipe, Worker())
    assert error.value.errno == 28
    assert sorted(store.chunks.find()) == [0, 1]
    assert len(os.listdir(tmp_path / "nbest")) == 2
    monkeypatch.setattr(os, "fsync", fsync)
    translate(store, split, recipe, Worker())
    assert sha256_of_all(store) == sha256_of_all(unbroken(split, recipe, tmp_path / "other"))


def unbroken(split, recipe, root):
    store = open_store(str(root), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    return store


def sha256_of_all(store):
    return [sha256(path) for path in store.chunks.find().values()]


def test_a_store_is_made_of_a_split_of_any_size(data, recipe, tmp_path):
    for size in (1, 2):
        split = with_sentences(load_split(data), size)
        store = open_store(str(tmp_path / str(size)), split, BEST, recipe)
        translate(store, split, recipe, Worker())
        assert sorted(all_nbest(store.root)) == list(range(size))


class TestReplaced:
    @pytest.fixture
    def own(self, store, tmp_path):
        shutil.copytree(store, tmp_path / "store")
        return PseudoTargetStore(str(tmp_path / "store"))

    def test_gone_when_the_new_one_is_begun(self, own, tmp_path):
        with own.replaced():
            assert not own.exists
            own.create({"search": {"beam": 1}})
        assert own.manifest["search"] == {"beam": 1}
        assert os.listdir(tmp_path) == ["store"]

    def test_back_when_it_cannot_be(self, own, tmp_path):
        before = own.manifest
        with pytest.raises(ValueError, match="cannot"), own.replaced():
            own.create({"search": {"beam": 1}})
            raise ValueError("cannot")
        assert own.manifest == before and own.chunks.find()
        assert os.listdir(tmp_path) == ["store"]

    def test_what_is_not_a_stores_is_left(self, own, tmp_path):
        (tmp_path / "store" / "note.txt").write_text("mine")
        with pytest.raises(ValueError, match="has 'note.txt', which is not a store's"):
            with own.replaced():
                pass
        assert own.exists and (tmp_path / "store" / "note.txt").exists()

    def test_nothing_there(self, tmp_path):
        with PseudoTargetStore(str(tmp_path / "nosuch")).replaced():
            pass
        assert os.listdir(tmp_path) == []


def test_chunks_without_a_manifest_are_refused(store, data, recipe, tmp_path):
    shutil.copytree(store / "nbest", tmp_path / "store" / "nbest")
    with pytest.raises(ValueError, match="has chunks, but no manifest.json"):
        open_store(str(tmp_path / "store"), load_split(data), BEST, recipe)


def test_the_seed_of_a_new_store_is_the_recipes(data, teacher, loaded, tmp_path):
    recipe = recipe_with(teacher, loaded, {"sampling": True})
    recipe.seed = 7
    search = open_store(str(tmp_path), load_split(data), BEST, recipe).manifest["search"]
    assert (search["seed"], search["beam"], search["nbest"]) == (7, 1, 1)
