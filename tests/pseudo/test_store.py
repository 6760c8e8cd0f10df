import os
import shutil

import numpy as np
import pytest

from fairseq_seqkd.pseudo.store import NBest, PseudoTargetStore, read_nbest

SENTENCES = [
    NBest(4, "translated", [(np.array([7, 8, 2]), -0.5), (np.array([2]), -1.5)]),
    NBest(0, "empty source", []),
    NBest(9, "translated", [(np.array([70000, 2]), -0.25)]),
    NBest(1, "source too long", []),
]


@pytest.fixture
def empty(tmp_path):
    store = PseudoTargetStore(str(tmp_path / "store"))
    store.create({"search": {"beam": 5}, "chunk_size": 3})
    return store


def plain(sentences):
    """`NBest` objects as tuples that can be compared."""
    return [
        (s.id, s.status, [(tokens.tolist(), score) for tokens, score in s.hypotheses])
        for s in sentences
    ]


@pytest.mark.parametrize("sentences", [SENTENCES, SENTENCES[:1], SENTENCES[1:2], []])
def test_chunk_comes_back_as_it_was(empty, sentences):
    empty.write_chunk(0, sentences)
    assert plain(read_nbest(empty.chunks.find()[0])) == plain(sentences)


def test_equal_chunks_are_equal_bytes(empty):
    for index in (0, 1):
        empty.write_chunk(index, SENTENCES)
    first, second = (open(empty.chunks.find()[i], "rb").read() for i in (0, 1))
    assert first == second


def test_plan_follows_the_manifest(empty):
    assert [len(chunk) for chunk in empty.plan([1, 2, 3, 4])] == [3, 1]


def test_exists_after_creation(tmp_path, empty):
    assert empty.exists
    assert not PseudoTargetStore(str(tmp_path / "other")).exists


def test_processes_that_create_it_at_once_must_agree(empty):
    empty.create({"search": {"beam": 5}, "chunk_size": 3})
    with pytest.raises(ValueError, match="search.beam: found 5, expected 35"):
        empty.create({"search": {"beam": 35}, "chunk_size": 3})
    assert empty.manifest["search"] == {"beam": 5}


def test_check_names_what_differs(empty):
    empty.check({"search": {"beam": 5, "lenpen": None}})
    message = (
        "store.*with other settings:\n  search.beam: found 5, expected 4\nName another folder"
    )
    with pytest.raises(ValueError, match=message):
        empty.check({"search": {"beam": 4}})


class TestReplaced:
    @pytest.fixture
    def copied(self, store, tmp_path):
        """A copy of the store."""
        shutil.copytree(store, tmp_path / "store")
        return PseudoTargetStore(str(tmp_path / "store"))

    def test_deleted_once_the_new_one_is_made(self, copied, tmp_path):
        with copied.replaced():
            assert not copied.exists
            copied.create({"search": {"beam": 1}})
        assert copied.manifest["search"] == {"beam": 1}
        assert os.listdir(tmp_path) == ["store"]

    def test_restored_after_an_error(self, copied, tmp_path):
        before = copied.manifest
        with pytest.raises(ValueError, match="cannot"), copied.replaced():
            copied.create({"search": {"beam": 1}})
            raise ValueError("cannot")
        assert copied.manifest == before and copied.chunks.find()
        assert os.listdir(tmp_path) == ["store"]

    def test_foreign_files_are_kept(self, copied, tmp_path):
        (tmp_path / "store" / "note.txt").write_text("mine")
        with pytest.raises(ValueError, match="has 'note.txt', which is not a store's"):
            with copied.replaced():
                pass
        assert copied.exists and (tmp_path / "store" / "note.txt").exists()

    def test_nothing_there(self, tmp_path):
        with PseudoTargetStore(str(tmp_path / "nosuch")).replaced():
            pass
        assert os.listdir(tmp_path) == []
