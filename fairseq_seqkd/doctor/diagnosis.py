"""Judges an installation and checkpoints: one finding each, with the commands that help."""

import re
import textwrap
from typing import NamedTuple

from fairseq_seqkd.doctor.installation import COMPILED, inspect_installation

OK, NOTE, TROUBLE = "ok", "note", "trouble"

INSTALL_FIXED = """\
pip install torch numpy cython setuptools wheel bitarray cffi hydra-core==1.3.2 \
omegaconf==2.3.0 regex sacrebleu scikit-learn tqdm
pip install --no-build-isolation --no-deps fairseq-fixed"""
INSTALL_UPSTREAM = """\
pip install "pip<24.1" "setuptools<70" wheel
pip install torch==1.12.1 torchaudio==0.12.1 "numpy<1.24" cython
pip install fairseq==0.12.2"""

RECOMPILE = "pip install --force-reinstall --no-cache-dir --no-build-isolation --no-deps {}"

# {package: what fairseq-fixed needs, what upstream fairseq needs}, as pip understands it.
REQUIRED = {
    "torch": ("torch>=1.12", "torch>=1.12"),
    "numpy": ("numpy", "numpy<1.24"),
    "omegaconf": ("omegaconf~=2.3.0", "omegaconf<2.1"),
    "hydra-core": ("hydra-core~=1.3.2", "hydra-core<1.1"),
    "sacrebleu": ("sacrebleu>=2.0", "sacrebleu>=2.0"),
    **{name: (name, name) for name in ("safetensors", "sentencepiece", "tabulate", "tqdm")},
}
# {optional package: its use}
EXTRAS = {
    "ctranslate2": "translates with Transformers several times faster, and exports them",
    "matplotlib": "draws the plots of fairseq-seqkd evaluate",
    "jinja2": "makes the page of fairseq-seqkd evaluate",
    "sacremoses": "undoes Moses tokenisation (--moses)",
}
# (name, whether it applies to an `Installation`, what to know, what to do)
NOTES = [
    (
        "Python",
        lambda installed: not (3, 8) <= numbers(installed.python) < (3, 14),
        "this version is not tested",
        "take Python 3.11 to 3.13, or 3.8 to 3.10 with upstream fairseq",
    ),
    (
        "numpy",
        lambda installed: numbers(installed.versions.get("numpy")) >= (2,),
        "fairseq needs numpy 1 for --sample-break-mode eos, --num-batch-buckets, "
        "and fairseq-preprocess --workers of more than 2 GiB",
        "for these, with Python 3.11 or 3.12: pip install numpy==1.26.4",
    ),
    (
        "batches",
        lambda installed: installed.drops_sentences,
        "fairseq leaves out up to 7 sentences, the rest of a last batch",
        "--required-batch-size-multiple 1, in training, validation and generation",
    ),
    (
        "checkpoints",
        lambda installed: numbers(installed.versions.get("torch")) >= (2, 6),
        "with torch 2.6 and later, stock fairseq loads only those of plain data",
        "add --user-dir $(fairseq-seqkd user-dir) to fairseq's commands, or\n"
        "fairseq-seqkd export CHECKPOINT --to fairseq --out student.pt",
    ),
    (
        "checkpoints",
        lambda installed: () < numbers(installed.versions.get("torch")) < (2, 6),
        "before torch 2.6 they can run code when they are loaded",
        "load only those that you trust, or take torch 2.6",
    ),
]


class Finding(NamedTuple):
    """The judgement on one thing.

    Attributes:
        name: such as ``numpy``
        found: its version, or a description
        state: OK, NOTE (it works, but there is something to know) or TROUBLE
        remedy: what to do, one command or sentence per line; empty if it is OK
    """

    name: str
    found: str
    state: str = OK
    remedy: str = ""

    def __str__(self):
        lines = [f"{self.state:8}{self.name:14} {self.found}", *self.remedy.splitlines()]
        return f"\n{'':8}  ".join(lines)


def examine(checkpoints, data=None):
    """Examine this installation and some checkpoints; returns a list of `Finding`.

    Args:
        checkpoints: paths of files
        data: folder with their dictionaries; None looks where a teacher's are looked for
    """
    installation = inspect_installation()
    if {"fairseq", "fairseq_seqkd"} & installation.errors.keys():
        missing = "was not examined: that needs fairseq", NOTE, "cure the above first"
        return diagnose(installation) + [Finding(path, *missing) for path in checkpoints]
    return diagnose(installation) + [diagnose_checkpoint(path, data) for path in checkpoints]


def count_troubles(findings):
    return sum(finding.state == TROUBLE for finding in findings)


def as_text(findings):
    """All findings, and a last line with the number of troubles."""
    count = count_troubles(findings)
    last = f"{count} trouble{'s' * (count > 1)}" if count else "nothing is wrong"
    return "\n".join([*map(str, findings), last])


def diagnose(installation):
    """Judge an `Installation`; returns a list of `Finding`."""
    findings = [Finding("Python", installation.python)]
    for name, requirements in REQUIRED.items():
        requirement = requirements[_is_upstream(installation)]
        findings.append(_package(installation, name, requirement))
    findings.append(_fairseq(installation, [f.name for f in findings if f.state == TROUBLE]))
    error = installation.errors.get("fairseq_seqkd")
    if error:
        found = f"does not import: {error}"
        findings.append(Finding("fairseq_seqkd", found, TROUBLE, "pip check"))
    findings += [_package(installation, name, name, use) for name, use in EXTRAS.items()]
    notes = [note for note in NOTES if note[1](installation)]
    return findings + [Finding(name, found, NOTE, remedy) for name, _, found, remedy in notes]


def numbers(version):
    """The leading numbers of a version: ``2.13.0+cpu`` is (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version or "")
    return tuple(map(int, match[0].split("."))) if match else ()


def satisfies(version, requirement):
    """Whether a version meets a requirement such as ``numpy<2``, by its leading numbers."""
    operator, bound = re.fullmatch(r"[\w-]+?(?:(<|>=|~=)([\d.]+))?", requirement).groups()
    found, bound = numbers(version), numbers(bound)
    if operator == "<":
        return found < bound
    return found >= bound and (operator != "~=" or found[:2] == bound[:2])


def _needs_fixed(installation):
    """Upstream fairseq does not import on Python 3.11 and later."""
    return numbers(installation.python) >= (3, 11)


def _is_upstream(installation):
    return not _needs_fixed(installation) and _installed(installation) != ["fairseq-fixed"]


def _installed(installation):
    return [name for name in ("fairseq", "fairseq-fixed") if name in installation.versions]


def _package(installation, name, requirement, use=None):
    """Judge one package; it is optional if its ``use`` is given."""
    version, error = installation.versions.get(name), installation.errors.get(name)
    if version is None:
        found = f"not installed; it {use}" if use else "not installed"
        return Finding(name, found, NOTE if use else TROUBLE, f'pip install "{requirement}"')
    if error:
        remedy = f'pip install --force-reinstall "{requirement}"'
        return Finding(name, f"{version}, does not import: {error}", TROUBLE, remedy)
    if not satisfies(version, requirement):
        found = f"{version}, expected {requirement}"
        return Finding(name, found, TROUBLE, f'pip install "{requirement}"')
    return Finding(name, version)


def _fairseq(installation, troubles):
    """Judge fairseq, given the names of the packages that are in trouble."""
    error = installation.errors.get("fairseq") or installation.errors.get(COMPILED)
    installed = [f"{name} {installation.versions[name]}" for name in _installed(installation)]
    found = " and ".join(installed) or "not installed"
    if installation.fairseq_path:
        found += f", imported from {installation.fairseq_path}"
    if len(installed) == 2:
        found += "; they overwrite each other's files"
    elif error:
        found += f"; does not import: {error}"
    else:
        return Finding("fairseq", found)
    return Finding("fairseq", found, TROUBLE, _fairseq_remedy(installation, error, troubles))


def _fairseq_remedy(installation, error, troubles):
    installed, path = _installed(installation), installation.fairseq_path
    install = INSTALL_FIXED if _needs_fixed(installation) else INSTALL_UPSTREAM
    if len(installed) == 2:
        return f"pip uninstall --yes fairseq fairseq-fixed\n{install}"
    if installed == ["fairseq"] and _needs_fixed(installation):
        return f"pip uninstall --yes fairseq\n{install}"
    if path and troubles:
        return f"cure {troubles[0]} first, as above"
    if COMPILED in installation.errors and installed:
        return RECOMPILE.format(*installed)
    if "torchaudio" in error:  # it is for another torch, and text models do not need it
        return "pip uninstall --yes torchaudio"
    if path and installed and "-packages" not in path:
        return "unset PYTHONPATH  # or go to another folder: this one hides the installed one"
    return install


def diagnose_checkpoint(path, data=None):
    """Load the model of a checkpoint; fairseq must be importable. Returns a `Finding`.

    Args:
        path: its file
        data: folder with its dictionaries; None looks where a teacher's are looked for
    """
    from fairseq_seqkd.models.checkpoints import config_of, load_state
    from fairseq_seqkd.models.language_tokens import direction_of
    from fairseq_seqkd.models.loading import load_models
    from fairseq_seqkd.models.parameters import parameters_of

    kind = ""
    try:
        kind = _kind(path)
        languages = direction_of(config_of(load_state(path), path).task)
        (model, *_), task, _ = load_models(path, data, languages=languages)
    except Exception as error:  # tasks and models of other plug-ins may raise anything
        reason = textwrap.shorten(str(error), 400, placeholder=" ...")
        found = f"does not load: {kind}{': ' * bool(kind)}{reason}"
        return Finding(path, found, TROUBLE, _checkpoint_remedy(path, kind, reason))
    weights = parameters_of(dict(model.named_parameters())).values()
    size = sum(weight.numel() for weight in weights)
    folder = (getattr(task, "cfg", None) or task.args).data
    return Finding(path, f"loads: {kind}, {size:,} parameters, dictionary in {folder}")


def _kind(path):
    """The names of a checkpoint's task, criterion and architecture."""
    from fairseq_seqkd.models.checkpoints import config_of, load_state

    config = config_of(load_state(path), path)
    parts = (
        (config.task, "task"),
        (config.get("criterion"), "criterion"),
        (config.model, "arch"),
    )
    names = [getattr(part, key, None) or getattr(part, "_name", None) for part, key in parts]
    return ", ".join(filter(None, names))


def _checkpoint_remedy(path, kind, reason):
    if not kind:
        return "take a file that fairseq-train wrote, from a source you trust, or copy it again"
    if "dictionary" in reason:
        return (
            "name the data-bin of its training, or copy its dict.*.txt beside it:\n"
            f"fairseq-seqkd doctor {path} --teacher-data DIR"
        )
    return "if it belongs to another plug-in: a --user-dir that imports that and fairseq_seqkd"
