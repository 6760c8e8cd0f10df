from dataclasses import dataclass

import numpy as np
import pytest

from fairseq_seqkd.chunked.fill import fill_chunks, missing_chunks, prefetch_by_one
from fairseq_seqkd.chunked.store import ChunkedStore
from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.io.progress import WorkProgress

LENGTHS = [3, 9, 1, 9, 4, 2, 7]
PLAN = [[1, 3], [6, 4], [0, 5], [2]]


@dataclass
class Sentence:
    id: int


class TextStore(ChunkedStore):
    """A store whose chunks are lines of sentence ids."""

    FLAG, KIND, FORMAT = "--text-store", "store", 1
    FOLDER, SUFFIX = "chunks", "txt"

    def write_chunk(self, index, sentences):
        self.chunks.write(index, " ".join(str(one.id) for one in sentences).encode())


@pytest.fixture
def store(tmp_path):
    """A new store of seven sentences in four chunks."""
    store = TextStore(str(tmp_path / "store"))
    store.create({"chunk_size": 2})
    return store


def fill(store, indices, worker=None):
    """Fill some chunks, with the sentences of each in reverse; returns the ids in order."""
    started = []

    def start(ids):
        started.append(ids.tolist())
        return (Sentence(id_) for id_ in reversed(ids.tolist()))

    fill_chunks(
        store, store.plan(LENGTHS), indices, start, worker or Worker(), np.array(LENGTHS)
    )
    return started


def contents(store):
    """{index: sentence ids} of the chunks that are there."""
    return {
        index: [int(id_) for id_ in open(path).read().split()]
        for index, path in store.chunks.find().items()
    }


class TestMissingChunks:
    @pytest.mark.parametrize(
        "worker, mine",
        [(Worker(), [0, 1, 2, 3]), (Worker(0, 2), [0, 2]), (Worker(1, 2), [1, 3])],
    )
    def test_all_of_a_new_store(self, store, worker, mine):
        assert missing_chunks(store, 4, worker) == ([0, 1, 2, 3], mine)

    def test_none_of_a_finished_store(self, store):
        fill(store, range(4))
        assert missing_chunks(store, 4, Worker()) == ([], [])

    def test_chunks_of_others_are_missing_but_not_mine(self, store):
        fill(store, [0, 2])
        assert missing_chunks(store, 4, Worker(0, 2)) == ([1, 3], [])
        assert missing_chunks(store, 4, Worker(1, 2)) == ([1, 3], [1, 3])

    def test_damaged_chunks_of_this_worker_are_removed(self, store, caplog):
        fill(store, range(4))
        for index in (0, 1):
            with open(store.chunks.find()[index], "a") as file:
                file.write("x")
        assert missing_chunks(store, 4, Worker(1, 2)) == ([1], [1])
        assert sorted(store.chunks.find()) == [0, 2, 3]
        assert "was damaged: it is made again" in caplog.text


class TestFillChunks:
    def test_sentences_are_written_in_the_order_of_the_plan(self, store):
        assert fill(store, range(4)) == PLAN
        assert contents(store) == dict(enumerate(PLAN))

    def test_other_chunks_are_left_alone(self, store):
        assert fill(store, [1, 3]) == [PLAN[1], PLAN[3]]
        assert contents(store) == {1: PLAN[1], 3: PLAN[3]}

    def test_progress_is_counted_in_tokens(self, store, monkeypatch):
        """Of chunks 1 and 3, with the sentences 6, 4 and 2 in reverse order."""
        seen = []

        class Recorded(WorkProgress):
            def add(self, tokens):
                super().add(tokens)
                seen.append((self.bar.n, self.bar.total, self.done, self.sentences))

        monkeypatch.setattr("fairseq_seqkd.chunked.fill.WorkProgress", Recorded)
        fill(store, [1, 3])
        assert seen == [(4, 12, 1, 3), (11, 12, 2, 3), (12, 12, 3, 3)]

    def test_chunks_before_a_failure_are_kept(self, store):
        def start(ids):
            yield from map(Sentence, ids.tolist())
            if 0 in ids:
                raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            fill_chunks(
                store, store.plan(LENGTHS), range(4), start, Worker(), np.array(LENGTHS)
            )
        assert contents(store) == {0: PLAN[0], 1: PLAN[1]}

    def test_the_next_chunk_is_started_before_one_is_written(self, store):
        events = []

        def start(ids):
            events.append(f"start {ids.tolist()}")
            return map(Sentence, ids.tolist())

        def write_chunk(index, sentences):
            events.append(f"write {PLAN[index]}")

        store.write_chunk = write_chunk
        fill_chunks(store, store.plan(LENGTHS), [0, 1], start, Worker(), np.array(LENGTHS))
        assert events == [
            *(f"start {PLAN[0]}", f"start {PLAN[1]}"),
            *(f"write {PLAN[0]}", f"write {PLAN[1]}"),
        ]

    @pytest.mark.parametrize("rank", [0, 1])
    def test_the_first_worker_shows_the_progress(self, store, capsys, rank):
        fill(store, [0, 2], Worker(rank, 2))
        assert ("4 of 4" in capsys.readouterr().err) == (rank == 0)


class TestPrefetchByOne:
    def test_the_next_item_is_started_before_one_is_yielded(self):
        events = []

        def begin(item):
            events.append(f"begin {item}")
            return item

        for item in prefetch_by_one(begin(item) for item in range(3)):
            events.append(f"write {item}")
        assert events == ["begin 0", "begin 1", "write 0", "begin 2", "write 1", "write 2"]

    @pytest.mark.parametrize("items", [[], [7], [7, 8, 9]])
    def test_items_and_their_order_stay(self, items):
        assert list(prefetch_by_one(items)) == items
