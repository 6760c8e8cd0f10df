"""Building models from checkpoints, with their own dictionaries."""

import shutil
import subprocess
from argparse import Namespace

import pytest
import torch

from fairseq_seqkd.databin import open_split
from fairseq_seqkd.models.loading import load_models, task_with_dictionaries_in


@pytest.fixture(scope="module")
def task(teacher):
    return load_models(str(teacher))[1]


def knows_dictionary(path, *arguments, **keywords):
    """Whether the dictionary that was found is the model's own."""
    return load_models(str(path), *arguments, **keywords)[2]


class TestDictionary:
    """The folders in which a model's dictionary is looked for."""

    @pytest.fixture
    def moved(self, teacher, tmp_path):
        """The checkpoint alone in a folder, with a recorded data path that is gone."""
        state = torch.load(teacher)
        state["cfg"]["task"]["data"] = str(tmp_path / "gone")
        (tmp_path / "moved").mkdir()
        torch.save(state, tmp_path / "moved" / "teacher.pt")
        return tmp_path / "moved" / "teacher.pt"

    def test_in_the_data_of_its_training(self, teacher):
        assert knows_dictionary(teacher)

    def test_named(self, moved, data):
        assert knows_dictionary(moved, str(data))

    def test_with_a_byte_order_mark(self, moved, data, tmp_path):
        """Its first symbol would be in no text; the remedy in the message works."""
        folder = shutil.copytree(data, tmp_path / "data")
        path = folder / "dict.tgt.txt"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        for load in (knows_dictionary, lambda _, data: open_split(data, "train")):
            with pytest.raises(ValueError, match="begins with a byte-order mark") as error:
                load(moved, str(folder))
        remedy = str(error.value).split("else: ")[1]
        subprocess.run(remedy, shell=True, check=True)
        assert path.read_bytes() == (data / "dict.tgt.txt").read_bytes()
        assert knows_dictionary(moved, str(folder))

    def test_named_wrongly(self, moved, tmp_path):
        with pytest.raises(FileNotFoundError, match="dictionary.*--teacher-data"):
            load_models(str(moved), str(tmp_path))

    def test_beside_the_checkpoint(self, moved, data, task):
        for name in ("dict.src.txt", "dict.tgt.txt"):
            shutil.copy(data / name, moved.parent)
        assert knows_dictionary(moved, student_task=task)

    def test_one_joined_file_beside_the_checkpoint(self, moved, data, task):
        shutil.copy(data / "dict.src.txt", moved.parent)
        shutil.copy(data / "dict.tgt.txt", moved.parent / "dict.txt")
        _, found, is_own = load_models(str(moved), student_task=task)
        assert is_own and found.target_dictionary == task.target_dictionary

    def test_nowhere(self, moved):
        with pytest.raises(FileNotFoundError, match="dictionary.*--teacher-data"):
            load_models(str(moved))

    def test_nowhere_compares_sizes_only_and_warns(self, moved, task, caplog):
        assert not knows_dictionary(moved, student_task=task)
        assert "only the sizes" in caplog.text and str(moved) in caplog.text

    def test_sizes_differ(self, moved, data, task, tmp_path):
        for name in ("dict.src.txt", "dict.tgt.txt"):
            lines = (data / name).read_text().splitlines()
            (tmp_path / name).write_text("\n".join([*lines, "more 1\n"]))
        with pytest.raises(ValueError, match="does not fit its dictionary"):
            load_models(str(moved), str(tmp_path), student_task=task)


def test_task_that_keeps_its_configuration_in_a_namespace(teacher, tmp_path):
    """As tasks without a dataclass do, such as speech_to_text."""
    state = torch.load(teacher)
    state["cfg"]["task"] = Namespace(**state["cfg"]["task"], task="translation")
    torch.save(state, tmp_path / "teacher.pt")
    assert knows_dictionary(tmp_path / "teacher.pt")


def test_an_ensemble_is_one_task_and_several_models(teacher):
    models, _, is_own = load_models(f"{teacher}:{teacher}")
    assert len(models) == 2 and is_own


class TestTaskOn:
    def test_other_data(self, teacher, data, tmp_path):
        shutil.copytree(data, tmp_path / "copy")
        assert task_with_dictionaries_in(str(teacher), str(tmp_path / "copy")).cfg.data == str(
            tmp_path / "copy"
        )

    def test_data_without_a_dictionary(self, teacher, tmp_path):
        with pytest.raises(FileNotFoundError, match="has no dictionary for the task of"):
            task_with_dictionaries_in(str(teacher), str(tmp_path))
