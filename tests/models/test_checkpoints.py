import shutil
from argparse import Namespace

import pytest
import torch
from test_compat import RunsCode, guarded

from fairseq_seqkd.teacher import load_teacher


@pytest.fixture(scope="module")
def loaded(teacher):
    return load_teacher(str(teacher))


@pytest.mark.parametrize("missing", ["no/such.pt", "no/such.pt:no/other.pt"])
def test_missing_checkpoint(missing):
    with pytest.raises(FileNotFoundError, match="no checkpoint at 'no/such.pt'"):
        load_teacher(missing)


@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x80\x02}q\x00."])
def test_not_a_checkpoint(tmp_path, content):
    (tmp_path / "teacher.pt").write_bytes(content)
    with pytest.raises(ValueError, match="teacher.pt'.*fairseq checkpoint"):
        load_teacher(str(tmp_path / "teacher.pt"))


def test_checkpoint_of_something_else(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt.*not a fairseq checkpoint"):
        load_teacher(str(tmp_path / "other.pt"))


@guarded
def test_malicious_checkpoint_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "was-executed"
    torch.save({"model": {}, "cfg": RunsCode(trace)}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt.*refused and nothing in it was executed"):
        load_teacher(str(tmp_path / "evil.pt"))
    assert not trace.exists()


class TestDictionary:
    """Where the teacher's dictionary is looked for, and what it is compared with."""

    @pytest.fixture
    def moved(self, teacher, tmp_path):
        """The checkpoint alone in a folder, with a recorded data path that is gone."""
        state = torch.load(teacher)
        state["cfg"]["task"]["data"] = str(tmp_path / "gone")
        (tmp_path / "moved").mkdir()
        torch.save(state, tmp_path / "moved" / "teacher.pt")
        return tmp_path / "moved" / "teacher.pt"

    def test_where_it_was_trained(self, teacher, loaded):
        assert loaded.knows_dictionary

    def test_named(self, moved, data):
        assert load_teacher(str(moved), str(data)).knows_dictionary

    def test_named_wrongly(self, moved, tmp_path):
        with pytest.raises(FileNotFoundError, match="dictionary.*--teacher-data"):
            load_teacher(str(moved), str(tmp_path))

    def test_beside_the_checkpoint(self, moved, data, loaded):
        for name in ("dict.src.txt", "dict.tgt.txt"):
            shutil.copy(data / name, moved.parent)
        assert load_teacher(str(moved), student_task=loaded.task).knows_dictionary

    def test_one_joined_file_beside_the_checkpoint(self, moved, data, loaded):
        shutil.copy(data / "dict.src.txt", moved.parent)
        shutil.copy(data / "dict.tgt.txt", moved.parent / "dict.txt")
        found = load_teacher(str(moved), student_task=loaded.task)
        assert found.knows_dictionary
        assert found.task.target_dictionary == loaded.task.target_dictionary

    def test_nowhere(self, moved):
        with pytest.raises(FileNotFoundError, match="dictionary.*--teacher-data"):
            load_teacher(str(moved))

    def test_nowhere_compares_sizes_only_and_warns(self, moved, loaded, caplog):
        found = load_teacher(str(moved), student_task=loaded.task)
        assert not found.knows_dictionary
        assert "only the sizes" in caplog.text

    def test_sizes_differ(self, moved, data, loaded, tmp_path):
        for name in ("dict.src.txt", "dict.tgt.txt"):
            lines = (data / name).read_text().splitlines()
            (tmp_path / name).write_text("\n".join([*lines, "more 1\n"]))
        with pytest.raises(ValueError, match="does not fit its dictionary"):
            load_teacher(str(moved), str(tmp_path), student_task=loaded.task)


def test_task_that_keeps_its_configuration_in_a_namespace(teacher, tmp_path):
    """As tasks without a dataclass do, such as speech_to_text."""
    state = torch.load(teacher)
    state["cfg"]["task"] = Namespace(**state["cfg"]["task"], task="translation")
    torch.save(state, tmp_path / "teacher.pt")
    assert load_teacher(str(tmp_path / "teacher.pt")).knows_dictionary
