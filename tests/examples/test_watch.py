"""The line that shows where a recipe's command is."""

import importlib.util
import subprocess
import sys
import time

import pytest
from conftest import ROOT

SPEC = importlib.util.spec_from_file_location("watch", ROOT / "examples" / "watch.py")
watch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(watch)

TRAIN = ["fairseq-train", "DATA", "--max-update", "400"]
INNER = "2026-01-01 | INFO | train_inner | epoch 001: {0} / 134 loss=9.9, num_updates={0}\n"
VALID = (
    "INFO | valid | epoch 001 | valid on 'valid' subset | loss 4 | bleu {} | num_updates {}\n"
)


def test_a_training_tells_updates_bleu_and_the_time_left():
    progress = watch.Progress(TRAIN, begin=0.0)
    assert progress.describe("nothing yet", 5.0) == ""
    log = INNER.format(100)
    assert progress.describe(log, 10.0) == "100 of 400 updates"
    log += VALID.format(12.25, 100) + VALID.format(11.0, 150) + INNER.format(200)
    expected = "200 of 400 updates, best validation BLEU 12.2, 0:20 left"
    assert progress.describe(log, 20.0) == expected


def test_a_resumed_training_is_estimated_by_the_updates_seen():
    progress = watch.Progress(TRAIN, begin=0.0)
    progress.describe(INNER.format(300), 10.0)
    assert progress.describe(INNER.format(350), 20.0).endswith("0:10 left")


def test_another_command_shows_its_last_bar():
    progress = watch.Progress(["fairseq-seqkd", "generate"], begin=0.0)
    bars = " 10%|#  | 60/600 [00:10<01:30, 6.0 sentences/s]\r 50%|# | 300/600 [00:50<00:50, 6]"
    assert progress.describe(bars, 50.0) == "50 %, 00:50 left"
    assert progress.describe("no bar", 50.0) == ""


@pytest.mark.parametrize("seconds, shown", [(0, "0:00"), (65.9, "1:05"), (3600, "60:00")])
def test_clock(seconds, shown):
    assert watch.clock(seconds) == shown


def test_only_what_was_appended_counts(tmp_path):
    path = tmp_path / "log"
    path.write_text("before ")
    begin = path.stat().st_size
    path.write_text("before after")
    assert watch.end_of(path, begin) == "after"


def test_in_a_file_it_adds_lines_and_ends_when_it_is_told(tmp_path):
    """QUIET and the half minute are shortened; the rest is the script as it runs."""
    script = (ROOT / "examples" / "watch.py").read_text()
    script = script.replace("QUIET = 10", "QUIET = 0").replace("else 30)", "else 0.1)")
    (tmp_path / "watch.py").write_text(script)
    log = tmp_path / "log"
    log.touch()
    with subprocess.Popen(
        [sys.executable, tmp_path / "watch.py", log, *TRAIN], stdout=subprocess.PIPE, text=True
    ) as process:
        time.sleep(1)
        log.write_text(INNER.format(100))
        line = process.stdout.readline()
        process.terminate()
        assert process.wait() == 0
    assert "100 of 400 updates" in line
