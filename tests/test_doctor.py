import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_compat import RunsCode, guarded

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.compat import LOADS_SAFELY
from fairseq_seqkd.doctor import diagnose, diagnose_checkpoint, look, look_at, report
from fairseq_seqkd.doctor.diagnosis import (
    _FIXED_LINES,
    _UPSTREAM_LINES,
    NOTE,
    OK,
    TROUBLE,
    Finding,
    numbers,
)
from fairseq_seqkd.doctor.facts import CheckpointFacts, Facts

COMMON = {
    **{"sacrebleu": "2.6.0", "sentencepiece": "0.2.3", "safetensors": "0.8.0"},
    **{"tabulate": "0.10.0", "tqdm": "4.70.1", "ctranslate2": "4.8.5", "matplotlib": "3.11.2"},
}
FIXED = Facts(
    python="3.11.7",
    versions={
        **{"fairseq-fixed": "0.12.3.1", "torch": "2.13.0+cpu", "numpy": "1.26.4"},
        **{"omegaconf": "2.3.0", "hydra-core": "1.3.2", "pip": "26.1", **COMMON},
    },
    fairseq_path="/site-packages/fairseq/__init__.py",
    compute_types=("float32", "int8"),
    cores=2,
    threads=2,
)
UPSTREAM = replace(
    FIXED,
    python="3.10.13",
    versions={
        **{"fairseq": "0.12.2", "torch": "1.12.1+cu102", "numpy": "1.23.5"},
        **{"omegaconf": "2.0.6", "hydra-core": "1.0.7", "pip": "24.0", **COMMON},
    },
)
NO_FAIRSEQ = {"fairseq": "ModuleNotFoundError: No module named 'fairseq'"}
MUTABLE = "ValueError: mutable default <class 'CommonConfig'> for field common is not allowed"


def having(facts, versions=None, errors=None, **changes):
    """The facts with other versions (None: it is not installed), errors and attributes."""
    versions = {**facts.versions, **(versions or {})}
    versions = {name: version for name, version in versions.items() if version is not None}
    return replace(facts, versions=versions, errors=errors or {}, **changes)


def test_numbers():
    versions = ["2.13.0+cpu", "2.6.0a0+git12", "24.1", "3", "unknown", "", None]
    assert list(map(numbers, versions)) == [(2, 13, 0), (2, 6, 0), (24, 1), (3,), (), (), ()]


@pytest.mark.parametrize("facts", [FIXED, UPSTREAM], ids=["fixed", "upstream"])
def test_what_goes_together(facts):
    findings = diagnose(facts)
    assert [f for f in findings if f.state != OK and f.what != "torch"] == []
    assert report(findings).splitlines()[-1] == "nothing is wrong"


TROUBLES = {
    "numpy 2, fairseq-fixed": (having(FIXED, {"numpy": "2.1.0"}), "numpy", '"numpy<2"'),
    "numpy 2, upstream": (having(UPSTREAM, {"numpy": "2.0.0"}), "numpy", '"numpy<1.24"'),
    "numpy 1.24, upstream": (having(UPSTREAM, {"numpy": "1.24.0"}), "numpy", '"numpy<1.24"'),
    "numpy does not import": (
        having(FIXED, errors={"numpy": "ImportError: libopenblas"}),
        *("numpy", "--force-reinstall"),
    ),
    "upstream on Python 3.11": (
        having(UPSTREAM, {"torch": "2.13.0"}, {"fairseq": MUTABLE}, python="3.11.0"),
        *("fairseq", f"pip uninstall --yes fairseq\n{_FIXED_LINES}"),
    ),
    "upstream on Python 3.12 from a folder": (
        having(FIXED, {"fairseq-fixed": None}, {"fairseq": MUTABLE}, python="3.12.1"),
        *("fairseq", _FIXED_LINES),
    ),
    "no fairseq, Python 3.11": (
        having(FIXED, {"fairseq-fixed": None}, NO_FAIRSEQ, fairseq_path=None),
        *("fairseq", _FIXED_LINES),
    ),
    "no fairseq, Python 3.10": (
        having(UPSTREAM, {"fairseq": None}, NO_FAIRSEQ, fairseq_path=None),
        *("fairseq", _UPSTREAM_LINES),
    ),
    "two of fairseq": (
        having(FIXED, {"fairseq": "0.12.2"}),
        *("fairseq", "pip uninstall --yes fairseq fairseq-fixed\n" + _FIXED_LINES),
    ),
    "two of fairseq, Python 3.10": (
        having(UPSTREAM, {"fairseq-fixed": "0.12.3.1"}),
        *("fairseq", "pip uninstall --yes fairseq fairseq-fixed\n" + _UPSTREAM_LINES),
    ),
    "another fairseq stands before": (
        having(FIXED, errors={"fairseq": MUTABLE}, shadowed=True),
        *("fairseq", "PYTHONPATH"),
    ),
    "torchaudio of another torch": (
        having(FIXED, errors={"fairseq": "OSError: libtorchaudio.so: undefined symbol"}),
        *("fairseq", "pip uninstall torchaudio"),
    ),
    "pip 24.1 before upstream is there": (
        having(
            FIXED,
            {"fairseq-fixed": None, "fairseq": None, "omegaconf": "2.3.0", "pip": "24.1"},
            python="3.9.1",
        ),
        *("pip", '"pip<24.1"'),
    ),
    "no torch": (having(FIXED, {"torch": None}), "torch", "pip install torch"),
    "no numpy": (having(FIXED, {"numpy": None}), "numpy", 'pip install "numpy<2"'),
    "no numpy, upstream": (having(UPSTREAM, {"numpy": None}), "numpy", '"numpy<1.24"'),
    "old torch": (having(UPSTREAM, {"torch": "1.11.0"}), "torch", '"torch>=1.12"'),
    "torch does not import": (
        having(FIXED, errors={"torch": "OSError: libcudart"}),
        *("torch", "--force-reinstall torch"),
    ),
    "no libbleu": (
        having(FIXED, errors={"fairseq.libbleu": "No module named 'fairseq.libbleu'"}),
        *("fairseq.libbleu", "C++ compiler ... --no-build-isolation ... fairseq-fixed"),
    ),
    "no data_utils_fast, upstream": (
        having(UPSTREAM, errors={"fairseq.data.data_utils_fast": "ValueError: numpy.dtype"}),
        *(
            "fairseq.data.data_utils_fast",
            "C++ compiler ... --no-build-isolation ... --no-binary fairseq fairseq",
        ),
    ),
    "the plug-in lacks something": (
        having(FIXED, errors={"fairseq_seqkd": "No module named 'regex'"}),
        *("fairseq_seqkd", "pip install"),
    ),
    "no sacrebleu": (having(FIXED, {"sacrebleu": None}), "sacrebleu", "pip install sacrebleu"),
    "old sacrebleu": (having(FIXED, {"sacrebleu": "1.5.1"}), "sacrebleu", '"sacrebleu>=2.0"'),
    "no omegaconf": (having(FIXED, {"omegaconf": None}), "omegaconf", "omegaconf==2.3.0"),
    "no omegaconf, upstream": (
        having(UPSTREAM, {"omegaconf": None}),
        "omegaconf",
        '"omegaconf<2.1"',
    ),
    "ctranslate2 does not import": (
        having(FIXED, errors={"ctranslate2": "ImportError: libctranslate2"}),
        *("ctranslate2", "--force-reinstall ctranslate2"),
    ),
    "more threads than cores": (
        having(FIXED, threads=8),
        "threads",
        "export OMP_NUM_THREADS=2",
    ),
}
NOTES = {
    "fairseq drops sentences": (
        having(FIXED, drops_sentences=True),
        *("batches", "--required-batch-size-multiple 1"),
    ),
    "torch refuses checkpoints": (
        FIXED,
        "torch",
        "--user-dir ... export CHECKPOINT --to fairseq",
    ),
    "torch 2.6": (having(FIXED, {"torch": "2.6.0"}), "torch", "--user-dir"),
    "a checkpoint can run code": (having(FIXED, {"torch": "2.5.1"}), "torch", "can run code"),
    "pip 24.1 after upstream": (having(UPSTREAM, {"pip": "24.1"}), "pip", '"pip<24.1"'),
    "another fairseq that works": (having(FIXED, shadowed=True), "fairseq", "PYTHONPATH"),
    "CUDA without a GPU": (having(FIXED, cuda="12.8"), "GPU", "processor"),
    "no ctranslate2": (having(FIXED, {"ctranslate2": None}), "ctranslate2", "pip install"),
    "no matplotlib": (having(FIXED, {"matplotlib": None}), "matplotlib", "pip install"),
    "Python that was not tested": (having(FIXED, python="3.13.0"), "Python", "3.11 and 3.12"),
}
FINE = {
    "numpy 1.26, fairseq-fixed": (having(FIXED, {"numpy": "1.26.4"}), "numpy", "1.26.4"),
    "fairseq-fixed, Python 3.10": (
        having(FIXED, {"pip": "24.1"}, python="3.10.0"),
        "pip",
        "24.1",
    ),
    "pip 26 with fairseq-fixed": (FIXED, "pip", "26.1"),
    "a GPU": (having(FIXED, cuda="12.8", gpus=("H100",)), "GPU", "H100"),
    "no GPU": (FIXED, "GPU", "none"),
    "as many threads as cores": (FIXED, "threads", "2 cores, OMP_NUM_THREADS is 2"),
    "threads are not set": (having(FIXED, threads=None), "threads", "not set"),
    "ctranslate2": (FIXED, "ctranslate2", "4.8.5 ... float32, int8"),
    "a folder that is not installed": (
        having(FIXED, {"fairseq-fixed": None}),
        "fairseq",
        "/site-packages/fairseq",
    ),
}


def table(cases):
    return pytest.mark.parametrize("facts, what, expected", cases.values(), ids=list(cases))


def has(text, expected):
    """Whether each of the parts, separated by dots, is in the text."""
    return all(part in text for part in expected.split(" ... "))


@table(TROUBLES)
def test_trouble_has_a_remedy(facts, what, expected):
    (finding,) = [f for f in diagnose(facts) if f.state == TROUBLE]
    assert finding.what == what
    assert has(finding.remedy, expected)
    assert report(diagnose(facts)).splitlines()[-1] == "1 trouble"


@table(NOTES)
def test_note_is_no_trouble(facts, what, expected):
    (finding,) = [f for f in diagnose(facts) if f.what == what]
    assert finding.state == NOTE and has(finding.remedy, expected)
    assert report(diagnose(facts)).splitlines()[-1] == "nothing is wrong"


@table(FINE)
def test_fine(facts, what, expected):
    (finding,) = [f for f in diagnose(facts) if f.what == what]
    assert finding.state == OK and has(finding.found, expected)


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_fairseq_waits_for_what_it_needs(name):
    facts = having(FIXED, errors={name: "OSError: x", "fairseq": "OSError: x"})
    first, second = [f for f in diagnose(facts) if f.state == TROUBLE]
    assert (first.what, second.what) == (name, "fairseq")
    assert second.remedy == f"cure {name} first, as above"


@pytest.mark.parametrize("facts", [FIXED, UPSTREAM], ids=["fixed", "upstream"])
def test_nothing_is_there(facts):
    """fairseq does not wait for torch then: its lines install both."""
    missing = {"torch": "No module named 'torch'", "numpy": "No module named 'numpy'"}
    bare = replace(facts, versions={}, errors={**missing, **NO_FAIRSEQ}, fairseq_path=None)
    (finding,) = [f for f in diagnose(bare) if f.what == "fairseq"]
    assert finding.remedy == (_FIXED_LINES if facts is FIXED else _UPSTREAM_LINES)


def test_an_error_of_numpy_in_fairseq():
    error = "AttributeError: module 'numpy' has no attribute 'float'"
    facts = having(UPSTREAM, {"numpy": "1.26.4"}, {"fairseq": error})
    troubles = [f for f in diagnose(facts) if f.state == TROUBLE]
    assert [f.what for f in troubles] == ["numpy", "fairseq"]
    assert all('"numpy<1.24"' in f.remedy for f in troubles)


def test_report():
    findings = [
        Finding("numpy", "2.1.0", TROUBLE, "do this\nand that"),
        Finding("tqdm", "4.70.1"),
        Finding("a-name-that-is-long", "x", TROUBLE, "do"),
    ]
    assert report(findings).split("\n") == [
        "trouble numpy          2.1.0",
        "          do this",
        "          and that",
        "ok      tqdm           4.70.1",
        "trouble a-name-that-is-long x",
        "          do",
        "2 troubles",
    ]


@pytest.mark.parametrize(
    "lines, pins",
    [(_FIXED_LINES, "constraints.txt"), (_UPSTREAM_LINES, "constraints-upstream.txt")],
)
def test_remedies_install_what_is_tested(lines, pins):
    """The same packages as the Makefile, in the versions that continuous integration pins."""
    pinned = (ROOT / ".ci" / pins).read_text().split()
    words = [word.strip('"') for word in lines.split() if not word.startswith("--")]
    packages = [word for word in words if word not in ("pip", "install")]
    makefile = (ROOT / "Makefile").read_text()
    for package in packages:
        name = re.match(r"[\w-]+", package)[0]
        assert re.search(rf"\b{name}\b", makefile + " ".join(pinned)), name
        assert "==" not in package or package in pinned
    assert len(packages) > 4


class TestHere:
    """What is looked up on the machine that runs the tests."""

    def test_facts(self):
        facts = look()
        assert facts.errors == {} and not facts.shadowed
        assert str(torch.__version__).startswith(facts.versions["torch"])
        assert facts.fairseq_path.endswith(os.path.join("fairseq", "__init__.py"))
        assert facts.drops_sentences == ("fairseq-fixed" in facts.versions)
        assert "float32" in facts.compute_types or "ctranslate2" not in facts.versions

    @pytest.mark.parametrize(
        "value, expected", [("3", 3), ("4,2", 4), ("", None), ("many", None), (None, None)]
    )
    def test_threads(self, value, expected, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS")
        if value is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert look().threads == expected

    def test_command(self, teacher, capsys):
        main(["doctor", str(teacher)])
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "nothing is wrong"
        assert any(f"{teacher} loads: translation, cross_entropy" in line for line in lines)

    def test_exit_status(self, capsys):
        with pytest.raises(SystemExit, match="1"):
            main(["doctor", "no/such.pt"])
        assert capsys.readouterr().out.endswith("\n1 trouble\n")


LOADED = CheckpointFacts("x.pt", None, "translation", "word_kd", "lstm", 1234, "data")
CHECKPOINTS = {
    "stock": (LOADED, OK, "1,234 parameters, dictionary in data; stock fairseq loads it, too"),
    "refused": (
        replace(LOADED, refused="argparse.Namespace"),
        *(NOTE, "torch refuses its argparse.Namespace ... --user-dir ... export x.pt --to"),
    ),
    "not of fairseq": (
        replace(LOADED, foreign=("translation_seqkd", "word_kd")),
        *(NOTE, "translation_seqkd is not of fairseq, word_kd is not ... --user-dir ... --to"),
    ),
    "not there": (
        CheckpointFacts("x.pt", FileNotFoundError("no checkpoint at 'x.pt'")),
        *(TROUBLE, "does not load: no checkpoint at ... fairseq-train ... source you trust"),
    ),
    "no dictionary": (
        replace(LOADED, error=FileNotFoundError("the dictionary ... is not in 'data'")),
        *(
            TROUBLE,
            "does not load: translation, word_kd, lstm: the dictionary ... --teacher-data",
        ),
    ),
    "something else": (
        replace(LOADED, error=AssertionError("unknown architecture " + "x " * 999)),
        *(TROUBLE, "unknown architecture x x ... --user-dir ... fairseq_seqkd"),
    ),
}


@pytest.mark.parametrize("facts, state, expected", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_checkpoint_is_diagnosed(facts, state, expected):
    finding = diagnose_checkpoint(facts)
    assert finding.state == state and has(str(finding), expected)
    assert max(map(len, str(finding).splitlines())) < 500


class TestCheckpoint:
    def test_loads(self, teacher, data):
        facts = look_at(str(teacher))
        parameters = sum(p.numel() for p in _model(teacher).parameters())
        assert facts == CheckpointFacts(
            *(str(teacher), None, "translation", "cross_entropy", "transformer", parameters),
            dictionary=str(data),
            refused="argparse.Namespace" if LOADS_SAFELY else "",
        )
        finding = diagnose_checkpoint(facts)
        assert f"{parameters:,} parameters, dictionary in {data}" in finding.found
        assert finding.state == (NOTE if LOADS_SAFELY else OK)
        assert not LOADS_SAFELY or f"export {teacher} --to fairseq" in finding.remedy

    def test_our_criterion_is_not_stock(self, word_kd_student):
        facts = look_at(str(word_kd_student[0] / "checkpoint_last.pt"))
        assert facts.foreign == ("word_kd",)
        finding = diagnose_checkpoint(facts)
        assert finding.state == NOTE and "word_kd is not of fairseq" in finding.remedy
        assert "--user-dir" in finding.remedy and "--to fairseq" in finding.remedy

    def test_exported(self, word_kd_student, tmp_path, capsys):
        out = str(tmp_path / "student.pt")
        main(
            ["export", f"{word_kd_student[0]}/checkpoint_last.pt", "--to", "fairseq"]
            + ["--out", out]
        )
        finding = diagnose_checkpoint(look_at(out))
        assert finding.state == OK and finding.found.endswith("stock fairseq loads it, too")

    def test_what_was_allowed_stays_allowed(self, teacher):
        look_at(str(teacher))
        assert "model" in torch.load(teacher)

    def test_dictionary(self, teacher, data, tmp_path):
        where = {"data": str(tmp_path / "gone"), "source_lang": "src", "target_lang": "tgt"}
        moved = _changed(teacher, tmp_path / "moved.pt", **where)
        finding = diagnose_checkpoint(look_at(moved))
        assert finding.state == TROUBLE and "--teacher-data DIR" in finding.remedy
        assert "translation, cross_entropy" in finding.found
        assert look_at(moved, str(data)).dictionary == str(data)
        for name in ("dict.src.txt", "dict.tgt.txt"):
            shutil.copy(data / name, tmp_path)
        assert look_at(moved).dictionary == str(tmp_path)

    def test_task_of_another_plug_in(self, teacher, tmp_path):
        finding = diagnose_checkpoint(
            look_at(_changed(teacher, tmp_path / "other.pt", _name="no_such"))
        )
        assert finding.state == TROUBLE and "has a task 'no_such'" in finding.found
        assert "--user-dir" in finding.remedy

    @pytest.mark.parametrize("content", [None, b"", b"just text\n"])
    def test_no_checkpoint(self, tmp_path, content):
        if content is not None:
            (tmp_path / "x.pt").write_bytes(content)
        finding = diagnose_checkpoint(look_at(str(tmp_path / "x.pt")))
        assert finding.state == TROUBLE and "fairseq-train" in finding.remedy

    @guarded
    def test_pickle_that_runs_code(self, tmp_path):
        torch.save({"model": {}, "cfg": RunsCode(tmp_path / "trace")}, tmp_path / "evil.pt")
        finding = diagnose_checkpoint(look_at(str(tmp_path / "evil.pt")))
        assert finding.state == TROUBLE and "a source you trust" in finding.remedy
        assert not (tmp_path / "trace").exists()


def _model(path):
    from fairseq_seqkd.models.loading import load_models

    return load_models(str(path))[0][0]


def _changed(checkpoint, path, **task):
    state = torch.load(checkpoint)
    state["cfg"]["task"].update(task)
    torch.save(state, path)
    return str(path)


class TestBrokenFairseq:
    """A fairseq that does not import stands before the installed one."""

    @pytest.fixture
    def python(self, tmp_path):
        (tmp_path / "fairseq").mkdir()
        (tmp_path / "fairseq" / "__init__.py").write_text(
            "raise ValueError('mutable default CommonConfig')\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

        def run(*arguments):
            return subprocess.run(
                [sys.executable, *arguments],
                env=environment,
                capture_output=True,
                text=True,
            )

        return run

    def test_doctor(self, python, tmp_path):
        program = str(Path(sys.executable).parent / "fairseq-seqkd")
        done = python(program, "doctor", "x.pt")
        path = tmp_path / "fairseq" / "__init__.py"
        found = f"{path}, does not import: ValueError: mutable default CommonConfig"
        assert done.returncode == 1
        assert f"trouble fairseq        {found}\n" in done.stdout
        assert "take its folder off PYTHONPATH" in done.stdout
        assert "x.pt           was not looked at" in done.stdout
        assert done.stdout.endswith("\n1 trouble\n")

    def test_import_names_the_doctor(self, python):
        done = python("-c", "import fairseq_seqkd")
        assert done.returncode == 0
        assert "mutable default CommonConfig" in done.stderr
        assert "fairseq-seqkd doctor" in done.stderr

    def test_what_needs_fairseq_is_the_error_itself(self, python):
        done = python("-c", "from fairseq_seqkd.teacher import load_teacher")
        assert done.returncode == 1
        assert done.stderr.endswith("\nValueError: mutable default CommonConfig\n")

    def test_other_subcommands_name_the_doctor(self, python):
        done = python("-m", "fairseq_seqkd.cli.main", "generate", "--help")
        assert done.returncode == 2
        *_, line = done.stderr.splitlines()
        assert line.startswith("fairseq-seqkd generate: ValueError: mutable default")
        assert line.endswith("Next: fairseq-seqkd doctor")

    def test_list_of_subcommands(self, python):
        done = python("-m", "fairseq_seqkd.cli.main", "--help")
        assert done.returncode == 0 and "Write a student in a form" in done.stdout


def test_an_error_of_the_plug_in_stops_fairseq_train():
    """With --user-dir fairseq is there before this package, and must not go on without it."""
    code = "import sys, types; sys.modules['fairseq'] = types.ModuleType('fairseq')\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "import fairseq_seqkd"], stderr=subprocess.PIPE
    )
    assert done.returncode == 1 and b"fairseq" in done.stderr.splitlines()[-1]


def test_a_plug_in_that_lacks_a_package(tmp_path):
    (tmp_path / "sacrebleu.py").write_text("raise ImportError('no sacrebleu here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_seqkd.cli.main", "doctor"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert done.returncode == 1
    assert b"does not import: ImportError: no sacrebleu here" in done.stdout
