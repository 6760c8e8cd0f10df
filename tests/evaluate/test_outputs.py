import pytest

from fairseq_seqkd.evaluate.outputs import as_lines, name_outputs
from fairseq_seqkd.evaluate.report import Row, Seed


def row(model, beam=1, engine="fairseq", device="cpu", seeds=1):
    one = Row(model, engine, device, 1, beam, 0, "")
    one.seeds = [Seed(f"{i}.pt") for i in range(seeds)]
    return one


def names(*rows):
    name_outputs(rows, ["test"])
    return [seed.outputs["test"][len("outputs/test/") :] for one in rows for seed in one.seeds]


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([row("a")], ["a.greedy.fairseq.txt"]),
        ([row("a b/c: *+d", 5)], ["a_b_c_+d.beam5.fairseq.txt"]),
        ([row("a", engine="ctranslate2:int8")], ["a.greedy.ctranslate2-int8.txt"]),
        (
            [row("a"), row("a", device="cuda")],
            ["a.greedy.fairseq.cpu.txt", "a.greedy.fairseq.cuda.txt"],
        ),
        (
            [row("a", seeds=2)],
            ["a.seed1.greedy.fairseq.txt", "a.seed2.greedy.fairseq.txt"],
        ),
        (
            [row("x y"), row("X/Y"), row("x:y")],
            [f"{name}.txt" for name in ("x_y.greedy.fairseq", "X_Y.greedy.fairseq-2")]
            + ["x_y.greedy.fairseq-3.txt"],
        ),
        ([row("ä" * 300)], ["ä" * 50 + ".greedy.fairseq.txt"]),
        ([row("../x")], ["_x.greedy.fairseq.txt"]),
    ],
)
def test_names_of_files(rows, expected):
    assert names(*rows) == expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\u2028", "\x85", "\x0c"])
def test_a_line_stays_one_line(end):
    """A byte piece may be a newline; programs differ in what ends a line."""
    assert as_lines([f"a{end}b", "", "c"]) == "a b\n\nc\n"
