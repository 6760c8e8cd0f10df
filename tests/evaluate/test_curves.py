import pytest
from conftest import train

from fairseq_seqkd.evaluate.curves import read_curves


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
