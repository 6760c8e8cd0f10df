"""Judging installations, which need not be here, and checkpoints."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from test_compat import RunsCode, guarded

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.doctor.diagnosis import (
    EXTRAS,
    INSTALL_FIXED,
    INSTALL_UPSTREAM,
    NOTE,
    OK,
    TROUBLE,
    Finding,
    as_text,
    diagnose,
    diagnose_checkpoint,
    numbers,
    satisfies,
)
from fairseq_seqkd.doctor.installation import COMPILED, Installation
from fairseq_seqkd.models import loading
from fairseq_seqkd.models.parameters import parameters_of

COMMON = {
    **{"sacrebleu": "2.6.0", "sentencepiece": "0.2.3", "safetensors": "0.8.0"},
    **{"tabulate": "0.10.0", "tqdm": "4.70.1", "ctranslate2": "4.8.5", "matplotlib": "3.11.2"},
    **{"jinja2": "3.1.6", "sacremoses": "0.2.0"},
}
FIXED = Installation(
    python="3.11.7",
    versions={
        **{"fairseq-fixed": "0.12.3.1", "torch": "2.13.0+cpu", "numpy": "1.26.4"},
        **{"omegaconf": "2.3.0", "hydra-core": "1.3.2", **COMMON},
    },
    fairseq_path="/site-packages/fairseq/__init__.py",
)
UPSTREAM = replace(
    FIXED,
    python="3.10.13",
    versions={
        **{"fairseq": "0.12.2", "torch": "1.12.1+cu102", "numpy": "1.23.5"},
        **{"omegaconf": "2.0.6", "hydra-core": "1.0.7", **COMMON},
    },
)
NO_FAIRSEQ = {"fairseq": "ModuleNotFoundError: No module named 'fairseq'"}
MUTABLE = "ValueError: mutable default <class 'CommonConfig'> for field common is not allowed"


def having(installation, versions=None, errors=None, **changes):
    """With other versions (None: it is not installed), errors and attributes."""
    versions = {**installation.versions, **(versions or {})}
    versions = {name: version for name, version in versions.items() if version is not None}
    return replace(installation, versions=versions, errors=errors or {}, **changes)


def test_numbers():
    versions = ["2.13.0+cpu", "2.6.0a0+git12", "24.1", "3", "unknown", "", None]
    assert list(map(numbers, versions)) == [(2, 13, 0), (2, 6, 0), (24, 1), (3,), (), (), ()]


@pytest.mark.parametrize(
    "version, requirement, expected",
    [
        ("1.26.4", "numpy<2", True),
        ("2.0.0", "numpy<2", False),
        ("1.24.0", "numpy<1.24", False),
        ("1.12.1+cu102", "torch>=1.12", True),
        ("1.11.0", "torch>=1.12", False),
        ("1.3.2", "hydra-core~=1.3.2", True),
        ("1.3.9", "hydra-core~=1.3.2", True),
        ("1.3.1", "hydra-core~=1.3.2", False),
        ("1.4.0", "hydra-core~=1.3.2", False),
        ("unknown", "hydra-core~=1.3.2", False),
        ("unknown", "tqdm", True),
    ],
)
def test_satisfies(version, requirement, expected):
    assert satisfies(version, requirement) == expected


@pytest.mark.parametrize("installation", [FIXED, UPSTREAM], ids=["fixed", "upstream"])
def test_what_goes_together(installation):
    findings = diagnose(installation)
    assert [f for f in findings if f.state != OK and f.name != "checkpoints"] == []
    assert as_text(findings).splitlines()[-1] == "nothing is wrong"


TROUBLES = {
    "numpy 2, upstream": (having(UPSTREAM, {"numpy": "2.0.0"}), "numpy", '"numpy<1.24"'),
    "numpy 1.24, upstream": (having(UPSTREAM, {"numpy": "1.24.0"}), "numpy", '"numpy<1.24"'),
    "numpy does not import": (
        having(FIXED, errors={"numpy": "ImportError: libopenblas"}),
        *("numpy", '--force-reinstall "numpy"'),
    ),
    "upstream on Python 3.11": (
        having(
            FIXED,
            {"fairseq-fixed": None, "fairseq": "0.12.2"},
            {"fairseq": MUTABLE},
            python="3.11.0",
        ),
        *("fairseq", f"pip uninstall --yes fairseq\n{INSTALL_FIXED}"),
    ),
    "upstream on Python 3.12 from a folder": (
        having(FIXED, {"fairseq-fixed": None}, {"fairseq": MUTABLE}, python="3.12.1"),
        *("fairseq", INSTALL_FIXED),
    ),
    "no fairseq, Python 3.11": (
        having(FIXED, {"fairseq-fixed": None}, NO_FAIRSEQ, fairseq_path=None),
        *("fairseq", INSTALL_FIXED),
    ),
    "no fairseq, Python 3.10": (
        having(UPSTREAM, {"fairseq": None}, NO_FAIRSEQ, fairseq_path=None),
        *("fairseq", INSTALL_UPSTREAM),
    ),
    "two of fairseq": (
        having(FIXED, {"fairseq": "0.12.2"}),
        *("fairseq", "pip uninstall --yes fairseq fairseq-fixed\n" + INSTALL_FIXED),
    ),
    "two of fairseq, Python 3.10": (
        having(UPSTREAM, {"fairseq-fixed": "0.12.3.1"}),
        *("fairseq", "pip uninstall --yes fairseq fairseq-fixed\n" + INSTALL_UPSTREAM),
    ),
    "another fairseq hides the installed one": (
        having(FIXED, errors={"fairseq": MUTABLE}, fairseq_path="/home/me/fairseq/__init__.py"),
        *("fairseq", "unset PYTHONPATH"),
    ),
    "compiled for numpy 1": (
        having(FIXED, {"numpy": "2.5.5"}, {COMPILED: "ImportError: numpy.core.multiarray"}),
        *("fairseq", "--no-cache-dir --no-build-isolation --no-deps fairseq-fixed"),
    ),
    "a checkout that is not compiled": (
        having(FIXED, {"fairseq-fixed": None}, {COMPILED: "ModuleNotFoundError"}),
        *("fairseq", INSTALL_FIXED),
    ),
    "torchaudio of another torch": (
        having(FIXED, errors={"fairseq": "OSError: libtorchaudio.so: undefined symbol"}),
        *("fairseq", "pip uninstall --yes torchaudio"),
    ),
    "no torch": (having(FIXED, {"torch": None}), "torch", 'pip install "torch>=1.12"'),
    "no numpy": (having(FIXED, {"numpy": None}), "numpy", 'pip install "numpy"'),
    "no numpy, upstream": (having(UPSTREAM, {"numpy": None}), "numpy", '"numpy<1.24"'),
    "old torch": (having(UPSTREAM, {"torch": "1.11.0"}), "torch", '"torch>=1.12"'),
    "torch does not import": (
        having(FIXED, errors={"torch": "OSError: libcudart"}),
        *("torch", '--force-reinstall "torch'),
    ),
    "the plug-in lacks something": (
        having(FIXED, errors={"fairseq_seqkd": "No module named 'regex'"}),
        *("fairseq_seqkd", "pip check"),
    ),
    "no sacrebleu": (having(FIXED, {"sacrebleu": None}), "sacrebleu", '"sacrebleu>=2.0"'),
    "old sacrebleu": (having(FIXED, {"sacrebleu": "1.5.1"}), "sacrebleu", '"sacrebleu>=2.0"'),
    "no omegaconf": (having(FIXED, {"omegaconf": None}), "omegaconf", '"omegaconf~=2.3.0"'),
    "no omegaconf, upstream": (
        having(UPSTREAM, {"omegaconf": None}),
        *("omegaconf", '"omegaconf<2.1"'),
    ),
    "omegaconf of upstream": (
        having(FIXED, {"omegaconf": "2.0.6"}),
        *("omegaconf", '"omegaconf~=2.3.0"'),
    ),
    "hydra too new for upstream": (
        having(UPSTREAM, {"hydra-core": "1.3.2"}),
        *("hydra-core", '"hydra-core<1.1"'),
    ),
    "ctranslate2 does not import": (
        having(FIXED, errors={"ctranslate2": "ImportError: libctranslate2"}),
        *("ctranslate2", '--force-reinstall "ctranslate2"'),
    ),
}
NOTES = {
    "fairseq drops sentences": (
        having(FIXED, drops_sentences=True),
        *("batches", "--required-batch-size-multiple 1"),
    ),
    "torch refuses checkpoints": (
        FIXED,
        "checkpoints",
        "--user-dir ... export CHECKPOINT --to fairseq",
    ),
    "torch 2.6": (having(FIXED, {"torch": "2.6.0"}), "checkpoints", "--user-dir"),
    "a checkpoint can run code": (
        having(FIXED, {"torch": "2.5.1"}),
        *("checkpoints", "those that you trust"),
    ),
    "Python that was not tested": (having(FIXED, python="3.14.0"), "Python", "3.11 to 3.13"),
    "numpy 2": (
        having(FIXED, {"numpy": "2.5.5"}),
        "numpy",
        "Python 3.11 or 3.12 ... numpy==1.26.4",
    ),
    **{
        f"no {name}": (having(FIXED, {name: None}), name, f'pip install "{name}"')
        for name in EXTRAS
    },
}
FINE = {
    "numpy 1.26, fairseq-fixed": (FIXED, "numpy", "1.26.4"),
    "Python 3.13": (having(FIXED, python="3.13.0"), "Python", "3.13.0"),
    "fairseq-fixed, Python 3.10": (having(FIXED, python="3.10.0"), "numpy", "1.26.4"),
    "ctranslate2": (FIXED, "ctranslate2", "4.8.5"),
    "another fairseq that works": (
        having(FIXED, fairseq_path="/home/me/fairseq/__init__.py"),
        *("fairseq", "fairseq-fixed 0.12.3.1, imported from /home/me/fairseq"),
    ),
    "a folder that is not installed": (
        having(FIXED, {"fairseq-fixed": None}),
        *("fairseq", "not installed, imported from /site-packages/fairseq"),
    ),
}


def table(cases):
    return pytest.mark.parametrize(
        "installation, name, expected", cases.values(), ids=list(cases)
    )


def has(text, expected):
    """Whether each of the parts, separated by dots, is in the text."""
    return all(part in text for part in expected.split(" ... "))


@table(TROUBLES)
def test_trouble_has_a_remedy(installation, name, expected):
    findings = diagnose(installation)
    (finding,) = [f for f in findings if f.state == TROUBLE]
    assert finding.name == name
    assert has(finding.remedy, expected)
    assert as_text(findings).splitlines()[-1] == "1 trouble"


@table(TROUBLES)
def test_remedies_can_be_pasted(installation, name, expected):
    for finding in diagnose(installation):
        lines = finding.remedy.splitlines() if finding.state == TROUBLE else []
        assert all(line.startswith(("pip ", "unset ")) for line in lines)


@table(NOTES)
def test_note_is_no_trouble(installation, name, expected):
    findings = diagnose(installation)
    (finding,) = [f for f in findings if f.name == name and f.state != OK]
    assert finding.state == NOTE and has(finding.remedy, expected)
    assert as_text(findings).splitlines()[-1] == "nothing is wrong"


@table(FINE)
def test_fine(installation, name, expected):
    (finding,) = [f for f in diagnose(installation) if f.name == name]
    assert finding.state == OK and has(finding.found, expected)


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_fairseq_waits_for_what_it_needs(name):
    installation = having(FIXED, errors={name: "OSError: x", "fairseq": "OSError: x"})
    first, second = [f for f in diagnose(installation) if f.state == TROUBLE]
    assert (first.name, second.name) == (name, "fairseq")
    assert second.remedy == f"cure {name} first, as above"


@pytest.mark.parametrize("installation", [FIXED, UPSTREAM], ids=["fixed", "upstream"])
def test_nothing_is_there(installation):
    """fairseq does not wait for torch then: its lines install both."""
    missing = {"torch": "No module named 'torch'", "numpy": "No module named 'numpy'"}
    bare = replace(installation, versions={}, errors={**missing, **NO_FAIRSEQ})
    (finding,) = [f for f in diagnose(replace(bare, fairseq_path=None)) if f.name == "fairseq"]
    assert finding.remedy == (INSTALL_FIXED if installation is FIXED else INSTALL_UPSTREAM)


def test_an_error_of_numpy_in_fairseq():
    error = "AttributeError: module 'numpy' has no attribute 'float'"
    installation = having(UPSTREAM, {"numpy": "1.26.4"}, {"fairseq": error})
    numpy, fairseq = [f for f in diagnose(installation) if f.state == TROUBLE]
    assert numpy.name == "numpy" and '"numpy<1.24"' in numpy.remedy
    assert fairseq.name == "fairseq" and fairseq.remedy == "cure numpy first, as above"


def test_as_text():
    findings = [
        Finding("numpy", "2.1.0", TROUBLE, "do this\nand that"),
        Finding("tqdm", "4.70.1"),
        Finding("a-name-that-is-long", "x", TROUBLE, "do"),
    ]
    assert as_text(findings).split("\n") == [
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
    [(INSTALL_FIXED, "constraints.txt"), (INSTALL_UPSTREAM, "constraints-upstream.txt")],
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


class TestCheckpoint:
    def test_loads(self, teacher, data, loaded):
        finding = diagnose_checkpoint(str(teacher))
        # Without upstream's room for copies of the encoder's weights.
        parameters = parameters_of(dict(loaded.models[0].named_parameters()))
        size = sum(parameter.numel() for parameter in parameters.values())
        assert finding == Finding(
            str(teacher),
            "loads: translation, cross_entropy, transformer, "
            f"{size:,} parameters, dictionary in {data}",
        )

    def test_our_criterion(self, word_kd_student):
        finding = diagnose_checkpoint(str(word_kd_student[0] / "checkpoint_last.pt"))
        assert finding.state == OK and "translation, word_kd, transformer" in finding.found

    def test_exported(self, word_kd_student, data, tmp_path, capsys):
        out = str(tmp_path / "student.pt")
        checkpoint = f"{word_kd_student[0]}/checkpoint_last.pt"
        main(["export", checkpoint, "--to", "fairseq", "--out", out])
        finding = diagnose_checkpoint(out)  # it names no folder of its training
        assert finding.state == TROUBLE and f"doctor {out} --teacher-data DIR" in finding.remedy
        finding = diagnose_checkpoint(out, str(data))
        assert finding.state == OK and "loads: translation, " in finding.found

    def test_dictionary(self, teacher, data, tmp_path):
        where = {"data": str(tmp_path / "gone"), "source_lang": "src", "target_lang": "tgt"}
        moved = _changed(teacher, tmp_path / "moved.pt", **where)
        finding = diagnose_checkpoint(moved)
        assert finding.state == TROUBLE
        assert f"fairseq-seqkd doctor {moved} --teacher-data DIR" in finding.remedy
        assert "does not load: translation, cross_entropy, transformer: the" in finding.found
        named = diagnose_checkpoint(moved, str(data))
        assert named.state == OK and named.found.endswith(f"dictionary in {data}")
        for name in ("dict.src.txt", "dict.tgt.txt"):
            shutil.copy(data / name, tmp_path)
        beside = diagnose_checkpoint(moved)
        assert beside.state == OK and beside.found.endswith(f"dictionary in {tmp_path}")

    def test_task_of_another_plug_in(self, teacher, tmp_path):
        finding = diagnose_checkpoint(_changed(teacher, tmp_path / "other.pt", _name="no_such"))
        assert finding.state == TROUBLE
        assert finding.found.startswith("does not load: no_such, cross_entropy, transformer: ")
        assert "--user-dir" in finding.remedy and "fairseq_seqkd" in finding.remedy

    def test_a_long_error_is_shortened(self, teacher, monkeypatch):
        def fail(path, data, languages):
            raise AssertionError("unknown architecture " + "x " * 999)

        monkeypatch.setattr(loading, "load_models", fail)
        finding = diagnose_checkpoint(str(teacher))
        assert finding.state == TROUBLE and "unknown architecture x x" in finding.found
        assert max(map(len, str(finding).splitlines())) < 600

    @pytest.mark.parametrize("content", [None, b"", b"just text\n"])
    def test_no_checkpoint(self, tmp_path, content):
        if content is not None:
            (tmp_path / "x.pt").write_bytes(content)
        finding = diagnose_checkpoint(str(tmp_path / "x.pt"))
        assert finding.state == TROUBLE and "fairseq-train" in finding.remedy

    @guarded
    def test_pickle_that_runs_code(self, tmp_path):
        torch.save({"model": {}, "cfg": RunsCode(tmp_path / "trace")}, tmp_path / "evil.pt")
        finding = diagnose_checkpoint(str(tmp_path / "evil.pt"))
        assert finding.state == TROUBLE and "a source you trust" in finding.remedy
        assert not (tmp_path / "trace").exists()


def _changed(checkpoint, path, **task):
    state = torch.load(checkpoint)
    state["cfg"]["task"].update(task)
    torch.save(state, path)
    return str(path)
