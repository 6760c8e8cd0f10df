"""The caches that ``fairseq-seqkd cache`` makes, also with several or killed processes."""

import random
import shutil
import time

import numpy as np
import pytest
import torch
from conftest import LONG, files, logged, lprobs_of, make_cache, train
from processes import ended_well, fairseq, start_command

from fairseq_seqkd import databin
from fairseq_seqkd.cache import build
from fairseq_seqkd.cache.sentences import CachedSentences
from fairseq_seqkd.cache.store import DistributionCache, hash_of, record_dtype
from fairseq_seqkd.cli.main import main
from fairseq_seqkd.databin import Split
from fairseq_seqkd.pseudo.mixing import Part, mix


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(build, "chunk_size", lambda sentences: 16)


@pytest.fixture(scope="module")
def scored_split(data, teacher):
    """The training split, as the teacher's task loads it."""
    return Split.load_for_scoring(str(teacher), str(data), "train")


def rows_by_id(root):
    """{id: (hash, rows)} of a cache."""
    cache, by_id = DistributionCache(str(root)), {}
    for path in cache.chunks.find().values():
        entries, rows = cache.read_chunk(path)
        ends = np.cumsum(entries["length"])
        for entry, end in zip(entries, ends):
            by_id[int(entry["id"])] = entry["hash"], rows[end - entry["length"] : end]
    return by_id


def hash_of_sentence(dataset, id_):
    """The hash that a cache has for a sentence."""
    return hash_of(*(dataset[id_][side].numpy() for side in ("source", "target")))


def test_of_fairseqs_older_format_it_is_the_same(data, older, teacher, tmp_path):
    """A cache begun with one format can be finished with the other."""
    root = make_cache(tmp_path / "cache", data, teacher)
    before = files(root)
    next((root / "rows").glob("chunk-00001-*.npy")).unlink()
    make_cache(root, older, teacher)
    assert files(root) == before


@pytest.mark.parametrize("temperature", [1, 2])
def test_every_sentence_has_the_teachers_top_k(
    data, teacher, loaded, scored_split, tmp_path, temperature
):
    flags = ["--top-k", 5, "--temperature", temperature, "--max-tokens", 200]
    found = rows_by_id(make_cache(tmp_path / "cache", data, teacher, *flags))
    dataset = scored_split.dataset
    assert sorted(found) == list(range(160))
    for id_ in set(found) - {LONG}:
        sample = dataset.collater([dataset[id_]])
        lprobs = torch.log_softmax(lprobs_of(loaded, sample["net_input"])[0] / temperature, -1)
        hash_, rows = found[id_]
        assert hash_ == hash_of_sentence(dataset, id_)
        best = lprobs.topk(5)
        # The order of nearly equal symbols depends on the batch.
        of_symbols = lprobs.gather(-1, torch.from_numpy(rows["symbols"].astype(np.int64)))
        torch.testing.assert_close(of_symbols, best.values, rtol=0, atol=1e-4)
        kept = torch.from_numpy(rows["lprobs"].astype(np.float32))
        torch.testing.assert_close(kept, of_symbols, rtol=1e-3, atol=1e-3)
        tail = 1 - best.values.exp().sum(-1)
        np.testing.assert_allclose(np.exp(rows["tail_lprobs"].astype(float)), tail, atol=2e-3)


def test_a_sentence_that_is_too_long_for_the_teacher_has_no_rows(
    data, teacher, tmp_path, capsys
):
    found = rows_by_id(make_cache(tmp_path / "cache", data, teacher))
    assert [id_ for id_, (_, rows) in found.items() if not len(rows)] == [LONG]
    assert "1 sentences are too long for the teacher" in capsys.readouterr().out


def test_any_number_of_processes_makes_the_same_cache(data, teacher, tmp_path):
    make_cache(tmp_path / "one", data, teacher)
    for rank in (2, 0, 1):
        worker = ["--num-shards", 3, "--shard-id", rank]
        make_cache(tmp_path / "three", data, teacher, *worker)
    assert files(tmp_path / "one") == files(tmp_path / "three")


def test_the_same_after_any_number_of_kills(data, teacher, tmp_path):
    moments = random.Random(1)

    def start(root):
        flags = ["--teacher-path", teacher, "--kd-cache", root, "--threads", 1]
        return start_command("cache", data, *flags)

    assert ended_well(start_command("cache", "--help"))  # has to import everything
    begin = time.monotonic()
    assert ended_well(start(tmp_path / "unbroken"))
    longest = time.monotonic() - begin
    expected, kills, caches = files(tmp_path / "unbroken"), 0, 0
    while kills < 10:
        caches += 1
        root = tmp_path / f"broken-{caches}"
        while not (root / "rows" / "sums.json").exists():
            child = start(root)
            if kills < 10:
                time.sleep(moments.uniform(0, longest))
                child.kill()
            kills += not ended_well(child)
        assert ended_well(start(root))
        assert files(root) == expected


def test_a_damaged_chunk_is_made_again(data, teacher, tmp_path, capsys):
    root = make_cache(tmp_path / "cache", data, teacher)
    expected = files(root)
    path = sorted((root / "rows").glob("*.npy"))[3]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    make_cache(root, data, teacher)
    assert files(root) == expected
    assert "was damaged: it is made again" in capsys.readouterr().err


def test_prints_the_size_and_the_next_command(data, teacher, scored_split, tmp_path, capsys):
    make_cache(tmp_path / "cache", data, teacher)
    out = capsys.readouterr().out
    tokens = scored_split.target_tokens(range(len(scored_split)))
    # The estimate includes the sentence that is too long, the cache does not.
    assert f"{tokens} target tokens will take" in out
    assert "  mean score of the targets: -" in out
    cached = tokens - len(scored_split.dataset[LONG]["target"])
    assert f"{cached} target tokens, 3" in out and "mean mass outside the top 8: 0." in out
    assert f"--kd-cache {tmp_path / 'cache'} ..." in out
    make_cache(tmp_path / "valid", data, teacher, "--split", "valid", "--temperature", 2)
    assert "--train-subset valid --kd-temperature 2 ..." in capsys.readouterr().out


@pytest.mark.parametrize("vocab, size", [(256, 26), (257, 34), (32000, 34), (70000, 50)])
def test_bytes_of_a_row(vocab, size):
    assert record_dtype(8, vocab).itemsize == size


def test_a_pseudo_target_stores_data_bin_has_a_cache_of_its_own(store, teacher, tmp_path):
    found = rows_by_id(make_cache(tmp_path / "cache", store / "best", teacher))
    dataset = Split.load_for_scoring(str(teacher), str(store / "best"), "train").dataset
    for id_, (hash_, rows) in found.items():
        if len(rows):
            assert hash_ == hash_of_sentence(dataset, id_)


@pytest.fixture(scope="module")
def mixture(data, store, tmp_path_factory):
    """Gold pairs three times and pseudo-targets once; some of them are gold as well."""
    folder = tmp_path_factory.mktemp("repeats") / "mixture"
    mix(str(folder), [Part(str(data), 3), Part(str(store / "best"))])
    return folder


@pytest.fixture(scope="module")
def mixture_cache(mixture, teacher, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(build, "chunk_size", lambda sentences: 16)
        return make_cache(tmp_path_factory.mktemp("repeats") / "cache", mixture, teacher)


class TestRepeatedPairs:
    def test_each_is_scored_once(self, mixture, mixture_cache, teacher):
        dataset = Split.load_for_scoring(str(teacher), str(mixture), "train").dataset
        pairs = [
            tuple(tuple(dataset[id_][side].tolist()) for side in ("source", "target"))
            for id_ in range(len(dataset))
        ]
        scored = rows_by_id(mixture_cache)
        assert sorted(scored) == sorted(map(pairs.index, set(pairs)))
        assert len(scored) <= len(pairs) // 2

    def test_every_copy_has_the_rows_of_its_pair(
        self, mixture, mixture_cache, data, teacher, tmp_path
    ):
        sentences = CachedSentences(DistributionCache(str(mixture_cache)))
        plain = rows_by_id(make_cache(tmp_path / "plain", data, teacher))
        for id_, (_, rows) in plain.items():
            for copy in range(3):
                found = sentences.rows_of(copy * len(plain) + id_)
                assert (found["symbols"] == rows["symbols"]).all()
                assert found["lprobs"] == pytest.approx(rows["lprobs"], abs=2e-3)

    def test_several_processes_make_the_same(self, mixture, mixture_cache, teacher, tmp_path):
        shared = tmp_path / "cache"
        for shard in (1, 0):
            flags = ["--num-shards", "2", "--shard-id", str(shard)]
            make_cache(shared, mixture, teacher, *flags)
        assert {path.name: path.read_bytes() for path in (shared / "rows").iterdir()} == {
            path.name: path.read_bytes() for path in (mixture_cache / "rows").iterdir()
        }
        assert (shared / "repeats.npy").read_bytes() == (
            mixture_cache / "repeats.npy"
        ).read_bytes()

    def test_a_training_reads_it(self, mixture, mixture_cache, tmp_path):
        flags = ["--criterion", "word_kd", "--kd-cache", mixture_cache, "--max-update", 2]
        output = train(mixture, tmp_path / "student", "--task", "translation", *flags)
        assert logged(output, "train")[-1]["train_num_updates"] == "2"

    def test_a_damaged_file_of_repeats(self, mixture_cache, tmp_path):
        copied = shutil.copytree(mixture_cache, tmp_path / "cache")
        content = bytearray((copied / "repeats.npy").read_bytes())
        content[-1] ^= 1
        (copied / "repeats.npy").write_bytes(content)
        with pytest.raises(ValueError, match="repeats.npy.*damaged"):
            CachedSentences(DistributionCache(str(copied)))

    def test_overwrite_removes_it(self, mixture_cache, mixture, teacher, data, tmp_path):
        copied = shutil.copytree(mixture_cache, tmp_path / "cache")
        make_cache(copied, data, teacher, "--overwrite")
        assert not (copied / "repeats.npy").exists()


class TestErrors:
    @pytest.fixture
    def fails(self, data, teacher, tmp_path, refused):
        """fails(*flags): stderr of ``fairseq-seqkd cache``, which must fail."""

        def call(*flags, data=data):
            where = ["--kd-cache", tmp_path / "cache", "--teacher-path", teacher]
            return refused("cache", data, *where, "--threads", 1, *flags)

        return call

    @pytest.mark.parametrize(
        "flags, message",
        [
            (["--top-k", 0], "--top-k is 0, expected from 1 to 336, the teacher's symbols"),
            (["--top-k", 400], "--top-k is 400, expected from 1 to 336"),
            (["--temperature", 0], "--temperature is 0.0, expected a number above 0"),
            (["--temperature", 1e30], "expected a number above 0, up to 1000"),
            (["--kd-cache", ""], "--kd-cache is empty, expected the name of a folder"),
            (["--max-tokens", 0], "--max-tokens is 0, expected 1 or more"),
            (["--split", "dev"], "has no split 'dev'"),
            (["--teacher-path", "none.pt"], "no checkpoint at 'none.pt'"),
        ],
    )
    def test_flags(self, fails, flags, message, tmp_path):
        assert message in fails(*flags)
        assert not (tmp_path / "cache").exists()

    def test_a_sentence_longer_than_a_batch(self, fails):
        assert "--max-tokens is 5, but a sentence has" in fails("--max-tokens", 5)

    def test_other_settings(self, fails, data, teacher, tmp_path):
        make_cache(tmp_path / "cache", data, teacher)
        message = fails("--top-k", 4, "--temperature", 2)
        assert "top_k: found 8, expected 4" in message
        assert "temperature: found 1.0, expected 2.0" in message
        make_cache(tmp_path / "cache", data, teacher, "--top-k", 4, "--overwrite")
        assert DistributionCache(str(tmp_path / "cache")).manifest["top_k"] == 4

    def test_other_data(self, fails, store, data, teacher, tmp_path):
        make_cache(tmp_path / "cache", data, teacher)
        assert "data.sha256.train.src-tgt.tgt.bin: found" in fails(data=store / "best")

    def test_other_split(self, fails, data, teacher, tmp_path):
        make_cache(tmp_path / "cache", data, teacher)
        assert "data.split: found train, expected valid" in fails("--split", "valid")

    def test_a_dictionary_that_is_not_the_teachers(self, fails, data, tmp_path):
        shutil.copytree(data, tmp_path / "data")
        path = tmp_path / "data" / "dict.tgt.txt"
        path.write_text(path.read_text() + "more 1\n")
        assert "dictionary" in fails(data=tmp_path / "data")
        assert not (tmp_path / "cache").exists()

    def test_a_teacher_that_reads_other_sources(self, fails, data, text, tmp_path):
        """Such as none, where it needs one: refused before there is a cache."""
        message = fails("--teacher-source", "none", data=data)
        assert "--teacher-source" in message
        assert not (tmp_path / "cache").exists()

    def test_two_data_bins_and_one_cache(self, fails, data):
        assert "found 1, expected 2: one folder for each" in fails(data=f"{data}:{data}")

    def test_something_else_in_the_folder(self, fails, data, teacher, tmp_path):
        make_cache(tmp_path / "cache", data, teacher)
        (tmp_path / "cache" / "thesis.txt").touch()
        assert "'thesis.txt', which is not a cache's" in fails("--overwrite")

    def test_a_teacher_that_diverged(self, fails, teacher, tmp_path, data):
        state = torch.load(teacher)
        state["model"]["decoder.embed_tokens.weight"].fill_(float("nan"))
        torch.save(state, tmp_path / "nan.pt")
        message = fails("--teacher-path", tmp_path / "nan.pt", "--teacher-data", data)
        assert "nan.pt' has no probabilities (NaN) for sentence" in message
        assert not list((tmp_path / "cache" / "rows").iterdir())

    @pytest.mark.parametrize("content", ["", "[]", "{"])
    def test_a_damaged_manifest(self, fails, data, teacher, tmp_path, content):
        make_cache(tmp_path / "cache", data, teacher)
        (tmp_path / "cache" / "manifest.json").write_text(content)
        message = fails()
        assert "manifest.json' is damaged" in message and "Delete the folder" in message

    def test_a_data_set_of_another_kind(self, fails, scored_split, monkeypatch):
        """The items of speech tasks are not dictionaries."""
        sentences = [(0, torch.zeros(3, 80), torch.tensor([5, 2]))]
        monkeypatch.setattr(scored_split.task, "load_dataset", lambda split: None)
        monkeypatch.setattr(scored_split.task, "dataset", lambda split: sentences)
        monkeypatch.setattr(databin, "task_with_dictionaries_in", lambda *_: scored_split.task)
        message = fails()
        assert "the data set of the task TranslationTask cannot be cached" in message
        assert "Train with --teacher-path instead" in message

    def test_no_targets(self, fails, text, data, tmp_path):
        pair = ["--source-lang", "src", "--target-lang", "tgt", "--only-source"]
        dictionaries = ["--srcdict", data / "dict.src.txt", "--destdir", tmp_path / "data"]
        fairseq("preprocess", *pair, *dictionaries, "--trainpref", text / "train")
        shutil.copy(data / "dict.tgt.txt", tmp_path / "data")
        assert "has no targets" in fails(data=tmp_path / "data")


def test_help_names_the_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["cache", "--help"])
    assert "symbols per position; default: 8" in " ".join(capsys.readouterr().out.split())
