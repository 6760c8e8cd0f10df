"""The README's commands, typed as they stand there, in its order; and its links."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, TRAINING, USER_DIR, synthetic
from processes import fairseq

README = (ROOT / "README.md").read_text()
# What is not run here: how it begins, and why or where else.
ELSEWHERE = {
    "make ": "by CI, on every change",
    "pip install": "by the Makefile",
    "torchrun": "tests/shards/test_processes.py has its variables",
    "DATA=DATA TEACHER=teacher.pt STORE=pseudo sbatch": "tests/examples/test_recipes.py",
    "DATA=multi30k": "hours: the numbers beside it are what it said",
    "SENTENCES=6000 DATA=multi30k": "a benchmark",
    "OMP_NUM_THREADS=1 ROUNDS": "a benchmark",
}
# A training ends after a few updates, and what refers to its length follows.
SHORTER = {"50000": "4", "5000": "4", "3000": "2"}
STUDENT = [word for word in map(str, [*TINY, *TRAINING]) if word != "--no-epoch-checkpoints"]
# Models that have learned little do not stop by themselves.
STUDENT += ["--max-target-positions", "48"]


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "".join(re.sub(r"\\\n\s*", "", block) for block in blocks).splitlines()
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]


def is_elsewhere(command):
    return any(command.startswith(beginning) for beginning in ELSEWHERE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: text in subwords, a data-bin, a teacher, and a student of before."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("user")
    synthetic().write_corpus(folder / "raw", {"train": 160, "valid": 24, "test": 20})
    sentencepiece.SentencePieceTrainer.train(
        input=[str(folder / "raw" / f"train.{side}") for side in ("src", "tgt")],
        model_prefix=str(folder / "spm"),
        vocab_size=120,
        model_type="bpe",
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    for path in (folder / "raw").iterdir():
        split, side = path.name.replace("src", "de").replace("tgt", "en").split(".")
        lines = path.read_text().splitlines()
        cut = "".join(" ".join(pieces.encode(line, out_type=str)) + "\n" for line in lines)
        (folder / f"{split}.{side}").write_text(cut)
    shutil.copy(folder / "raw" / "test.src", folder / "sentences.de")
    shutil.copy(folder / "raw" / "train.tgt", folder / "train.translated.en")
    data = ["--trainpref", "train", "--validpref", "valid", "--testpref", "test"]
    pair = ["--source-lang", "de", "--target-lang", "en", "--destdir", "DATA"]
    fairseq("preprocess", *pair, *data, folder=folder)
    shutil.copy(folder / "raw" / "test.tgt", folder / "test.en")
    for side in ("de", "en"):
        shutil.copy(folder / "DATA" / f"dict.{side}.txt", folder)
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 40]
    loss += ["--lr", "0.02"]  # enough for translations to come to an end
    fairseq("train", "DATA", *STUDENT, *loss, "--save-dir", "student", folder=folder)
    shutil.copytree(folder / "student", folder / "seq_kd")
    shutil.copy(folder / "student" / "checkpoint_best.pt", folder / "teacher.pt")
    how = ["--task", "translation", "--gen-subset", "train", "--cpu", "--user-dir", USER_DIR]
    found = fairseq(
        *["generate", "DATA", "--path", "teacher.pt", *how],
        *["--required-batch-size-multiple", 1],
        folder=folder,
    )
    (folder / "generate-train.txt").write_text(found)
    return folder


def words_of(command, number):
    """A command's words, with a student's flags and few updates."""
    command = command.replace("$(fairseq-seqkd user-dir)", USER_DIR)
    words = [SHORTER.get(word, word) for word in shlex.split(command)]
    if words[0] == "fairseq-train":
        assert words.pop() == "..."
        given = ["--max-update", "2", *words]
        words = [*given[2:], *STUDENT, *given[:2], "--save-dir", f"save-{number}"]
        if "--max-update" in given[2:]:  # the command's own counts
            del words[words.index("--save-dir") - 2 : words.index("--save-dir")]
    return words


@pytest.mark.parametrize(
    "number, command",
    [(i, command) for i, command in enumerate(commands()) if not is_elsewhere(command)],
)
def test_command(folder, number, command):
    words = words_of(command, number)
    if words[0] == "python":
        source, target = words[1], words[3]
        with open(folder / target) as file:
            run = [sys.executable, source]
            output = subprocess.run(run, stdin=file, stdout=-1, cwd=folder, check=True).stdout
        assert len(output.splitlines()) == 20
        return
    program = words[0].partition("fairseq-")[2]
    arguments = words[1:]
    if program in ("generate",):
        arguments = [*arguments, "--cpu"]
    output = fairseq(program, *arguments, folder=folder)
    if program == "train":
        assert "done training in" in output
        assert (folder / f"save-{number}" / "checkpoint_best.pt").exists()
    elif "--out" in words:
        assert (folder / words[words.index("--out") + 1]).exists()
    else:
        assert output.strip()


def test_nothing_is_said_to_be_elsewhere_that_is_not_there():
    for beginning in ELSEWHERE:
        assert any(command.startswith(beginning) for command in commands()), beginning


def anchors(text):
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in headings
    }


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 5
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors(README), link
        elif not link.startswith("https://"):
            assert (ROOT / link).exists(), link


def test_files_that_are_named_are_there():
    for path in set(re.findall(r"\bexamples/[\w/.-]+\w", README)):
        assert (ROOT / path).exists(), path
