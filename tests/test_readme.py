"""The commands of the README and of docs/, as written and in their order; and the links.

A command that cannot be run here has a comment above it: ``# not run by the tests: REASON``.
"""

import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
from conftest import ROOT, TINY, TRAINING, USER_DIR, synthetic
from processes import fairseq

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = "# not run by the tests: "
# Run by CI on every change, outside the tests.
BY_CI = ("make quickstart", "make test", "make lint", "pip install --no-deps -e .")
NEEDS_CTRANSLATE2 = re.compile(
    r"--to ctranslate2|ctranslate2:|--teacher-ct2|translate\.py|external "
)
# A training ends after a few updates, and flags that refer to its length follow.
SHORTER = {"50000": "4", "5000": "4", "3000": "2", "300000": "4"}
STUDENT = [word for word in map(str, [*TINY, *TRAINING]) if word != "--no-epoch-checkpoints"]
# Models that have learned little do not stop by themselves.
STUDENT += ["--max-target-positions", "48"]


class Command(NamedTuple):
    """A command of a page.

    Attributes:
        page: the file's name
        line: as typed, on one line
        reason: why it is not run; empty if it is
    """

    page: str
    line: str
    reason: str


def commands_of(page):
    """The `Command` list of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(re.sub(r"\\\n\s*", "", block) for block in blocks).splitlines()
    commands, reason = [], ""
    for line in filter(None, map(str.strip, lines)):
        if line.startswith("#"):
            reason = line[len(NOT_RUN) :] if line.startswith(NOT_RUN) else reason
            continue
        line = re.sub(r"\s+#.*", "", line)
        commands.append(Command(page.name, line, "by CI" if line in BY_CI else reason))
        reason = ""
    return commands


COMMANDS = [command for page in PAGES for command in commands_of(page)]


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory):
    """A user's folder: text in subwords, a data-bin, a teacher, and trained students."""
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
    for path in sorted((folder / "raw").iterdir()):
        split, side = path.name.replace("src", "de").replace("tgt", "en").split(".")
        lines = path.read_text().splitlines()
        cut = "".join(" ".join(pieces.encode(line, out_type=str)) + "\n" for line in lines)
        (folder / f"{split}.{side}").write_text(cut)
        shutil.copy(path, folder / "raw" / f"{split}.{side}")
        if split == "train":
            shutil.copy(path, folder / f"mono.{side}")
    shutil.copy(folder / "raw" / "test.src", folder / "sentences.de")
    shutil.copy(folder / "raw" / "train.tgt", folder / "train.translated.en")
    data = ["--trainpref", "train", "--validpref", "valid", "--testpref", "test"]
    pair = ["--source-lang", "de", "--target-lang", "en", "--destdir", "DATA"]
    fairseq("preprocess", *pair, *data, folder=folder)
    shutil.copy(folder / "raw" / "test.tgt", folder / "test.en")
    shutil.copy(folder / "raw" / "valid.tgt", folder / "valid.ref.en")
    for side in ("de", "en"):
        shutil.copy(folder / "DATA" / f"dict.{side}.txt", folder)
    train_models(folder)
    return folder


def train_models(folder):
    """A student that stands for all models of a user, and its translations."""
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 400]
    loss += ["--lr", "0.02"]  # enough for translations to come to an end
    fairseq("train", "DATA", *STUDENT, *loss, "--save-dir", "student", folder=folder)
    opposite = ["--source-lang", "en", "--target-lang", "de", "--save-dir", "opposite"]
    fairseq("train", "DATA", *STUDENT, *loss, *opposite, folder=folder)
    shutil.move(folder / "opposite" / "checkpoint_best.pt", folder / "reverse.pt")
    shutil.copytree(folder / "student", folder / "seq_kd")
    for name in ("teacher", "other"):
        shutil.copy(folder / "student" / "checkpoint_best.pt", folder / f"{name}.pt")
    how = ["--task", "translation", "--gen-subset", "train", "--cpu", "--user-dir", USER_DIR]
    output = fairseq(
        *["generate", "DATA", "--path", "teacher.pt", *how],
        *["--required-batch-size-multiple", 1],
        folder=folder,
    )
    (folder / "generate-train.txt").write_text(output)


@pytest.fixture(scope="module")
def folder_of(user_folder, tmp_path_factory):
    """folder_of(page): the user's folder, one copy a page."""
    folders = {}

    def folder_of(page):
        if page not in folders:
            folders[page] = tmp_path_factory.mktemp("page") / "user"
            shutil.copytree(user_folder, folders[page])
        return folders[page]

    return folder_of


def words_of(line, number):
    """A command's words; a training gets a student's flags and few updates."""
    line = line.replace("$(fairseq-seqkd user-dir)", USER_DIR)
    words = [SHORTER.get(word, word) for word in shlex.split(line)]
    if ">" in words:  # the output is looked at here
        words = words[: words.index(">")]
    if words[0] == "fairseq-train":
        assert words.pop() == "...", "a training's command ends in ..."
        length = [] if "--max-update" in words else ["--max-update", "2"]
        save = [] if "--save-dir" in words else ["--save-dir", f"save-{number}"]
        # The command's own flags come last and win, such as --arch.
        words = [words[0], *STUDENT, *words[1:], *length, *save]
    return words


@pytest.mark.parametrize(
    "number, command",
    [(i, command) for i, command in enumerate(COMMANDS) if not command.reason],
    ids=[f"{one.page}: {one.line[:50]}" for one in COMMANDS if not one.reason],
)
def test_command(folder_of, number, command):
    if NEEDS_CTRANSLATE2.search(command.line):
        pytest.importorskip("ctranslate2")
    folder, words = folder_of(command.page), words_of(command.line, number)
    if not words[0].startswith("fairseq-"):
        run_in_shell(command.line, folder)
        return
    program, arguments = words[0].partition("fairseq-")[2], words[1:]
    if program in ("generate", "validate") and "--cpu" not in arguments:
        arguments = [*arguments, "--cpu"]
    output = fairseq(program, *arguments, folder=folder)
    if program == "train":
        assert "done training in" in output
        save_dir = words[words.index("--save-dir") + 1]
        assert (folder / save_dir / "checkpoint_best.pt").exists()
    elif "--out" in words:
        assert (folder / words[words.index("--out") + 1]).exists()
    else:
        assert output.strip()


def run_in_shell(line, folder):
    """A command that is neither fairseq's nor ours, such as ``cp`` or the shipped script."""
    line = re.sub(r"^python\b", sys.executable, line)
    output = subprocess.run(line, shell=True, cwd=folder, check=True, stdout=-1).stdout
    if "translate.py" in line:
        assert len(output.splitlines()) == 20


def test_every_command_that_is_not_run_says_why():
    assert len(COMMANDS) > 30
    for command in COMMANDS:
        assert command.reason == "" or len(command.reason) > 4, command


def headings(text):
    """The anchors of a page."""
    lines = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in set(re.findall(r"\b(?:examples|tests)/[\w/.-]+\w", text)):
        assert (ROOT / path).exists(), path


def test_the_readme_can_be_finished():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_files_that_the_coverage_page_names_are_there():
    text = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:tests|examples)/[\w/.]+)`", text))
    assert len(paths) > 20 and [path for path in paths if not (ROOT / path).exists()] == []
