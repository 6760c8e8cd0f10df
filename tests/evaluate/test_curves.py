import gzip

import pytest
from conftest import train

from fairseq_seqkd.cli.evaluate import parse_named_paths
from fairseq_seqkd.evaluate.curves import read_curves, read_joined_curves


@pytest.mark.parametrize("log_format", ["simple", "json"])
def test_a_real_log(data, tmp_path, log_format):
    log = train(
        *[data, tmp_path / "save", "--task", "translation", "--criterion", "cross_entropy"],
        *["--max-update", "4", "--save-interval-updates", "2", "--log-format", log_format],
        *["--eval-bleu", "--eval-bleu-args", '{"beam": 1}'],
    )
    (tmp_path / "log").write_text(log)
    curves = read_curves(str(tmp_path / "log"))
    assert sorted(curves) == ["bleu", "loss"]
    for points in curves.values():
        assert [updates for updates, _ in points] == [2, 4]
    assert 1 < curves["loss"][-1][1] < 20 and 0 <= curves["bleu"][-1][1] <= 100


def test_a_resumed_log_tells_an_update_twice(tmp_path):
    line = (
        "2026 | INFO | valid | epoch 001 | valid on 'valid' subset | loss {} | num_updates {}\n"
    )
    text = "".join(
        line.format(*values) for values in [(5.5, 10), (4.5, 20), (4.25, 20), (4, 30)]
    )
    (tmp_path / "log").write_text("something else\n" + text)
    assert read_curves(tmp_path / "log") == {"loss": [(10, 5.5), (20, 4.25), (30, 4.0)]}


def test_a_compressed_log_with_a_progress_bar(tmp_path):
    line = "2026 | INFO | valid | epoch 1 | valid on 'valid' subset | loss {} | num_updates {}"
    text = f"epoch 1: 50%\r{line.format(5, 10)}\repoch 2: 3%\r\n{line.format(4, 20)}\r\n"
    (tmp_path / "log").write_bytes(gzip.compress(text.encode() + b"\xff"))
    assert read_curves(tmp_path / "log") == {"loss": [(10, 5.0), (20, 4.0)]}


def test_no_log(tmp_path):
    (tmp_path / "log").write_text("nothing of the kind\n")
    with pytest.raises(ValueError, match="--logs: '.*log' reports no validation. Expected"):
        read_curves(str(tmp_path / "log"))


def test_a_training_that_diverged_or_was_cut_off(tmp_path):
    lines = [
        '| valid | {"valid_loss": "nan", "valid_num_updates": "10"}',
        '| valid | {"valid_loss": "4.0", "valid_num_updates": "20"}',
        '| valid | {"valid_loss": "3.0", "valid_num_upda}',
        "| valid | epoch 001 | valid on 'valid' subset | loss 3.0 | num_up",
    ]
    (tmp_path / "log").write_text("\n".join(lines))
    assert read_curves(tmp_path / "log") == {"loss": [(20, 4.0)]}


def write_log(path, points):
    """A log with validation losses: [(update, loss)]."""
    line = "| valid on 'valid' subset | loss {1} | num_updates {0}\n"
    path.write_text("".join(line.format(*point) for point in points))
    return path


def test_logs_of_two_steps_are_joined(tmp_path):
    """The second step is counted from the last update of the first."""
    first = write_log(tmp_path / "first.log", [(10, 5.0), (20, 4.0)])
    second = write_log(tmp_path / "second.log", [(5, 3.5), (10, 3.0)])
    expected = {"loss": [(10, 5.0), (20, 4.0), (25, 3.5), (30, 3.0)]}
    assert read_joined_curves(f"{first},{second}") == expected
    assert read_joined_curves(str(first)) == {"loss": expected["loss"][:2]}


@pytest.mark.parametrize(
    "update, points",
    [
        (20, [(10, 5.0), (20, 4.0), (25, 3.5)]),
        (15, [(10, 5.0), (20, 3.5)]),  # a checkpoint between two validations
    ],
)
def test_the_second_step_began_with_an_earlier_checkpoint(tmp_path, update, points):
    first = write_log(tmp_path / "first.log", [(10, 5.0), (20, 4.0), (30, 3.8)])
    second = write_log(tmp_path / "second.log", [(5, 3.5)])
    assert read_joined_curves(f"{first}@{update},{second}") == {"loss": points}


def test_three_steps_and_a_metric_that_one_lacks(tmp_path):
    log = write_log(tmp_path / "a.log", [(10, 5.0)])
    bleu = tmp_path / "b.log"
    bleu.write_text("| valid on 'valid' subset | loss 4 | bleu 30 | num_updates 10\n")
    assert read_joined_curves(f"{log},{bleu},{log}") == {
        "loss": [(10, 5.0), (20, 4.0), (30, 5.0)],
        "bleu": [(20, 30.0)],
    }


def test_a_step_without_validation(tmp_path):
    log = write_log(tmp_path / "a.log", [(10, 5.0)])
    with pytest.raises(
        ValueError, match=r"--logs: '.*a\.log' reports no validation up to .* 5$"
    ):
        read_joined_curves(f"{log}@5,{log}")
    with pytest.raises(FileNotFoundError):
        read_joined_curves(f"{log},{tmp_path / 'b.log'}")


def test_a_log_whose_name_has_a_comma_or_an_at_sign(tmp_path):
    for name in ("a,b.log", "a.log@5"):
        log = write_log(tmp_path / name, [(10, 5.0)])
        assert read_joined_curves(str(log)) == {"loss": [(10, 5.0)]}


def test_logs_on_the_command_line():
    arguments = ["two steps=a.log@8,b.log", "x/a.log,x/b.log"]
    assert parse_named_paths(arguments, "--logs", separator=",") == {
        "two steps": "a.log@8,b.log",
        "a+b": "x/a.log,x/b.log",
    }
