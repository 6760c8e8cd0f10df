"""A data-bin whose source has more sentences than its target is refused in words."""

import shutil

import pytest
from conftest import preprocess, train

from fairseq_seqkd.databin import Split, open_split
from fairseq_seqkd.models.sides import check_sides

MESSAGE = (
    r"train.src-tgt.src.idx has 162 sentences, .*train.src-tgt.tgt.idx has 160 sentences: "
    r"expected the same number. They probably part near line \d+\. A carriage return"
)


@pytest.fixture(scope="module")
def uneven(text, tmp_path_factory):
    """A data-bin of text with carriage returns in two source lines."""
    folder = shutil.copytree(text, tmp_path_factory.mktemp("uneven") / "text")
    lines = (folder / "train.src").read_text(encoding="utf-8").split("\n")
    for number in (50, 90):
        lines[number] = lines[number].replace(" ", " \r ", 1)
    (folder / "train.src").write_bytes("\n".join(lines).encode())
    return preprocess(folder, folder / "data-bin")


@pytest.mark.parametrize("subcommand", ["generate", "import", "merge", "cache"])
def test_commands(refused, uneven, teacher, tmp_path, subcommand):
    teacher = ["--teacher-path", teacher]
    store = ["--pseudo-targets", tmp_path / "store"]
    (tmp_path / "text").write_text("a\n" * 160)
    arguments = {
        "generate": [*teacher, *store],
        "import": [tmp_path / "text", *store],
        "merge": store,
        "cache": [*teacher, "--kd-cache", tmp_path / "cache"],
    }
    error = refused(subcommand, uneven, *arguments[subcommand])
    assert "162 sentences" in error and "160 sentences" in error and "tr '\\r'" in error
    assert {path.name for path in tmp_path.iterdir()} == {"text"}


def test_a_training(uneven, tmp_path):
    loss = ["--task", "translation_seqkd", "--criterion", "cross_entropy"]
    output = train(uneven, tmp_path, *loss, "--max-update", "1", fails=True)
    assert "162 sentences" in output and "binarise again" in output


def test_the_likely_line(uneven, teacher):
    with pytest.raises(ValueError, match=MESSAGE):
        open_split(str(uneven), "train")
    with pytest.raises(ValueError, match=MESSAGE):
        Split.load_for_scoring(str(teacher), str(uneven), "train")


def test_splits_that_are_not_loaded_do_not_matter(uneven, data):
    check_sides(uneven, "valid")
    check_sides(uneven, "trai", combine=True)
    check_sides(data, "train", combine=True)
    check_sides("nosuch", "train")


def test_the_remedy_works(text, uneven, tmp_path):
    folder = shutil.copytree(text, tmp_path / "text")
    content = (uneven.parent / "train.src").read_bytes()
    (folder / "train.src").write_bytes(content.replace(b"\r", b" "))
    data = preprocess(folder, folder / "data-bin")
    assert len(open_split(str(data), "train")) == 160


def test_a_part_that_fairseq_appends(uneven, tmp_path):
    folder = shutil.copytree(uneven, tmp_path / "data")
    for path in list(folder.glob("train.*")):
        path.rename(folder / path.name.replace("train.", "train1."))
    check_sides(folder, "train")
    with pytest.raises(ValueError, match="train1.src-tgt.src.idx has 162"):
        check_sides(folder, "train", combine=True)
