import os
import shutil

import pytest
from conftest import (
    BEST,
    EMPTY,
    LONG,
    all_nbest,
    load_split,
    recipe_with,
    tokens_of,
    with_sentences,
)

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.io.files import sha256
from fairseq_seqkd.pseudo import generate
from fairseq_seqkd.pseudo.generate import open_store, translate
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.selectors import build_selector
from fairseq_seqkd.pseudo.target_spec import TargetSpec


@pytest.fixture
def recipe(teacher, loaded):
    return recipe_with(teacher, loaded)


def test_lists_are_the_teachers_translations_of_the_same_source(
    split, recipe, loaded, tmp_path
):
    store = open_store(str(tmp_path / "store"), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    lists = all_nbest(store.root)
    for id_ in (0, 3, 42, 159):
        sample = split.dataset.collater([split.dataset[id_]])
        expected = loaded.generate(sample["net_input"], SearchOptions(beam=5, nbest=5))[0]
        finished = [one["tokens"].tolist() for one in expected if len(one["tokens"]) < 60]
        assert tokens_of(lists[id_]) == finished
    assert sum(bool(lists[id_].hypotheses) for id_ in (0, 3, 42, 159)) >= 2
    assert lists[EMPTY].status == "empty source"
    assert lists[LONG].status == "source too long"


@pytest.mark.parametrize("selector, beam", [("best", 5), ("closest", 35)])
def test_default_beam_is_kim_and_rushs(split, recipe, tmp_path, selector, beam):
    spec = TargetSpec(build_selector(selector, split.dataset.tgt_dict))
    store = open_store(str(tmp_path), split, spec, recipe)
    search = store.manifest["search"]
    assert (search["beam"], search["nbest"]) == (beam, beam)


def test_workers_and_batches_keep_every_id_with_its_source(
    split, teacher, loaded, tmp_path, monkeypatch
):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 13)
    results = []
    for world_size, max_tokens in ((1, 4000), (2, 4000), (5, 60)):
        recipe = recipe_with(teacher, loaded, max_tokens=max_tokens)
        store = open_store(str(tmp_path / f"{world_size}"), split, BEST, recipe)
        for rank in reversed(range(world_size)):
            translate(store, split, recipe, Worker(rank, world_size))
        lists = all_nbest(store.root)
        assert sorted(lists) == list(range(160))
        results.append({id_: tokens_of(sentence) for id_, sentence in lists.items()})
    assert results[0] == results[1] == results[2]


def test_missing_chunks_are_made_again(split, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 50)
    store = open_store(str(tmp_path), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    before = {path: os.stat(path).st_mtime_ns for path in store.chunks.find().values()}
    os.unlink(store.chunks.find()[2])
    translate(store, split, recipe, Worker())
    after = {path: os.stat(path).st_mtime_ns for path in store.chunks.find().values()}
    assert list(before) == list(after)  # the names carry the content's sums
    assert [before[path] != after[path] for path in before] == [False, False, True, False]


@pytest.mark.parametrize("position", [0, 40, -1])
def test_one_byte_flipped_in_a_chunk_is_found_and_mended(
    split, recipe, tmp_path, position, caplog
):
    store = open_store(str(tmp_path), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    path = store.chunks.find()[0]
    content = bytearray(open(path, "rb").read())
    whole = bytes(content)
    content[position] ^= 1
    with open(path, "wb") as file:
        file.write(content)
    translate(store, split, recipe, Worker())
    assert open(path, "rb").read() == whole
    assert "was damaged: it is made again" in caplog.text


class TestSampling:
    @pytest.fixture
    def sampled(self, split, teacher, loaded, tmp_path):
        def call(name, max_tokens=None, **search):
            options = {"sampling": True, "beam": 3, **search}
            recipe = recipe_with(teacher, loaded, options, max_tokens=max_tokens)
            store = open_store(str(tmp_path / name), split, BEST, recipe)
            translate(store, split, recipe, Worker())
            return {i: tokens_of(sentence) for i, sentence in all_nbest(store.root).items()}

        return call

    @pytest.mark.parametrize("options", [{}, {"sampling_topk": 4}, {"sampling_topp": 0.8}])
    def test_a_sample_does_not_depend_on_its_batch(self, sampled, options):
        assert sampled("large", **options) == sampled("small", max_tokens=30, **options)

    def test_another_seed_draws_others(self, sampled):
        assert sampled("one", seed=1) != sampled("two", seed=2)

    def test_topk_of_one_is_greedy(self, sampled, split, loaded):
        samples = sampled("k1", sampling_topk=1)
        id_ = next(id_ for id_ in range(160) if samples[id_])
        dataset = split.dataset
        sample = dataset.collater([dataset[id_]])
        greedy = loaded.generate(sample["net_input"], SearchOptions(beam=1))[0][0]["tokens"]
        assert samples[id_] == [greedy.tolist()] * 3


class TestRefuses:
    def test_no_store_and_no_teacher(self, split, tmp_path):
        with pytest.raises(FileNotFoundError, match="no store at .*--teacher-path"):
            open_store(str(tmp_path / "store"), split, BEST, Recipe())

    def test_unfinished_store_and_no_teacher(self, split, recipe, tmp_path):
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

    def test_other_teacher(self, store, split, teacher, tmp_path):
        other = tmp_path / "other.pt"
        other.write_bytes(teacher.read_bytes() + b"\0")
        with pytest.raises(ValueError, match="teacher: found"):
            open_store(str(store), split, BEST, Recipe(str(other)))

    @pytest.mark.parametrize(
        "recipe, message",
        [
            (Recipe(search={"beam": 5}), "search.beam: found 4, expected 5"),
            (Recipe(search={"sampling": True}), "search.sampling: found False, expected True"),
            (Recipe(engine={"name": "ctranslate2"}), "engine.name: found fairseq, expected"),
            (Recipe(engine={"compute_type": "float16"}), "compute_type: found float32"),
        ],
    )
    def test_other_search_or_engine(self, store, split, recipe, message):
        with pytest.raises(ValueError, match=message):
            open_store(str(store), split, BEST, recipe)

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
    def test_a_search_that_is_invalid(self, split, teacher, loaded, tmp_path, search, message):
        recipe = recipe_with(teacher, loaded, search)
        with pytest.raises(ValueError, match=message):
            open_store(str(tmp_path / "store"), split, BEST, recipe)
        assert not (tmp_path / "store").exists()


def test_a_deleted_teacher_does_not_stop_the_use_of_a_finished_store(store, split):
    opened = open_store(str(store), split, BEST, Recipe("deleted.pt"))
    translate(opened, split, Recipe("deleted.pt"), Worker())


def test_with_a_full_disk_nothing_is_left_and_it_goes_on(split, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "chunk_size", lambda sentences: 50)
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


def test_a_store_is_made_of_a_split_of_any_size(split, recipe, tmp_path):
    for size in (1, 2):
        short = with_sentences(split, size)
        store = open_store(str(tmp_path / str(size)), short, BEST, recipe)
        translate(store, short, recipe, Worker())
        assert sorted(all_nbest(store.root)) == list(range(size))


def test_chunks_without_a_manifest_are_refused(store, split, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("fairseq_seqkd.io.locks.SECONDS_SEEN_LATE", 0)
    shutil.copytree(store / "nbest", tmp_path / "store" / "nbest")
    with pytest.raises(ValueError, match="has chunks, but no manifest.json"):
        open_store(str(tmp_path / "store"), split, BEST, recipe)


def test_the_seed_of_a_new_store_is_the_recipes(split, teacher, loaded, tmp_path):
    recipe = recipe_with(teacher, loaded, {"sampling": True})
    recipe.seed = 7
    search = open_store(str(tmp_path), split, BEST, recipe).manifest["search"]
    assert (search["seed"], search["beam"], search["nbest"]) == (7, 1, 1)
