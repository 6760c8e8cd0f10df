"""The package's structure keeps to its limits; see ``structure.py``."""

import statistics
import subprocess
import sys

import pytest
import structure
from conftest import TINY, TRAINING, USER_DIR
from processes import PROCESSES


def test_arrows_between_rooms_point_down():
    assert structure.upward_arrows() == {}


def test_every_room_has_a_level():
    rooms = {structure.room_of(path) for path in structure.python_files()} - {None}
    assert rooms == set(structure.LEVEL_OF)


def test_no_cycle_between_rooms():
    assert structure.cycles() == []


def test_functions_are_short():
    lengths = structure.function_lengths()
    values = sorted(lengths.values())
    assert statistics.median(values) <= 8
    assert values[int(0.9 * len(values))] <= 23
    assert {name: n for name, n in lengths.items() if n > 50} == {}


def test_files_are_short():
    assert {name: n for name, n in structure.file_lengths().items() if n > 350} == {}


@pytest.mark.parametrize("module", ["fairseq_seqkd.losses", "fairseq_seqkd.registry"])
def test_losses_and_registry_know_no_fairseq(module):
    """They import where there is no fairseq, with all that is in them."""
    code = f"""
import importlib, pkgutil, sys, types
for name in ("fairseq", "omegaconf", "hydra"):
    sys.modules[name] = None  # importing it is an ImportError
package = types.ModuleType("fairseq_seqkd")  # without its __init__, which registers
package.__path__ = [{str(structure.PACKAGE)!r}]
sys.modules["fairseq_seqkd"] = package
module = importlib.import_module({module!r})
for one in pkgutil.iter_modules(getattr(module, "__path__", [])):
    importlib.import_module(f"{module}.{{one.name}}")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_word_kd_step_opens_few_files(data, teacher, tmp_path):
    """Criterion, teacher, models and losses: at most six files."""
    arguments = [
        *[data, "--user-dir", USER_DIR, "--save-dir", tmp_path, *TRAINING, *TINY],
        *["--task", "translation", "--criterion", "word_kd", "--teacher-path", teacher],
        *["--max-update", 2, "--no-save", "--disable-validation"],
    ]
    queue = PROCESSES.Queue()
    process = PROCESSES.Process(
        target=structure.profile_second_step, args=([*map(str, arguments)], queue)
    )
    process.start()
    calls = queue.get(timeout=300)
    process.join()
    assert {name.split("/")[0] for name in calls} == {
        *("criterions", "teacher", "models", "losses")
    }
    assert len(calls) <= 6, calls
