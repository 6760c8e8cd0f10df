"""What the facts mean: a line a thing, and what to do where something is wrong."""

import re
import textwrap
from typing import NamedTuple

from fairseq_seqkd.doctor.facts import EXTENSIONS

OK, NOTE, TROUBLE = "ok", "note", "trouble"


class Finding(NamedTuple):
    """What was found of one thing.

    Attributes:
        what: such as ``numpy``
        found: its version, or what else is known of it
        state: OK, NOTE (it works, but there is something to know) or TROUBLE
        remedy: what to do, or to know; a line each; empty if it is OK
    """

    what: str
    found: str
    state: str = OK
    remedy: str = ""

    def __str__(self):
        lines = [f"{self.state:8}{self.what:14} {self.found}", *self.remedy.splitlines()]
        return f"\n{'':8}  ".join(lines)


def report(findings):
    """All findings, and a last line that says how many are troubles."""
    count = troubles(findings)
    last = f"{count} trouble{'s' * (count > 1)}" if count else "nothing is wrong"
    return "\n".join([*map(str, findings), last])


def troubles(findings):
    """How many of them are."""
    return sum(finding.state == TROUBLE for finding in findings)


def diagnose(facts):
    """What the `Facts` mean, as a list of `Finding`."""
    parts = [
        *(_python, _pip, _torch, _numpy, _fairseq, _plugin, _extensions, _batches),
        *(_needed, _ctranslate2, _matplotlib, _gpu, _threads),
    ]
    return [finding for part in parts for finding in part(facts)]


def numbers(version):
    """The leading numbers of a version: ``2.13.0+cpu`` is (2, 13, 0)."""
    found = re.match(r"\d+(\.\d+)*", version or "")
    return tuple(map(int, found[0].split("."))) if found else ()


_FIXED_LINES = """\
pip install torch "numpy<2" cython setuptools wheel bitarray cffi hydra-core==1.3.2 \
omegaconf==2.3.0 regex sacrebleu scikit-learn tqdm
pip install --no-build-isolation --no-deps fairseq-fixed"""
_UPSTREAM_LINES = """\
pip install "pip<24.1" "setuptools<70" wheel
pip install torch==1.12.1 torchaudio==0.12.1 "numpy<1.24" cython
pip install fairseq==0.12.2"""


def _wants_fixed(facts):
    """Upstream fairseq does not import on Python 3.11 and later."""
    return numbers(facts.python) >= (3, 11)


def _install_fairseq(facts):
    return _FIXED_LINES if _wants_fixed(facts) else _UPSTREAM_LINES


def _python(facts):
    if (3, 8) <= numbers(facts.python) < (3, 13):
        yield Finding("Python", facts.python)
    else:
        remedy = "not tested: Python 3.11 and 3.12 are, and 3.8 to 3.10 with upstream fairseq"
        yield Finding("Python", facts.python, NOTE, remedy)


def _pip(facts):
    version, omegaconf = (facts.versions.get(name) for name in ("pip", "omegaconf"))
    remedy = (
        'pip 24.1 and later refuse the omegaconf that upstream needs: pip install "pip<24.1"'
    )
    if numbers(version) < (24, 1) or _wants_fixed(facts) or "fairseq-fixed" in facts.versions:
        yield Finding("pip", version or "not there")
    elif numbers(omegaconf)[:2] == (2, 0):
        yield Finding("pip", f"{version}, omegaconf {omegaconf} is there", NOTE, remedy)
    else:
        yield Finding("pip", version, TROUBLE, remedy)


def _broken(facts, name, requirement=None):
    """The finding of a package that is not there or does not import; None of one that does."""
    version, error = facts.versions.get(name), facts.errors.get(name)
    requirement = requirement or name
    if version is None:
        return Finding(name, "not there", TROUBLE, f"pip install {requirement}")
    if error:
        remedy = f"pip install --force-reinstall {requirement}"
        return Finding(name, f"{version}, does not import: {error}", TROUBLE, remedy)
    return None


def _torch(facts):
    version, broken = facts.versions.get("torch"), _broken(facts, "torch")
    if broken:
        yield broken
    elif numbers(version) < (1, 12):
        yield Finding("torch", version, TROUBLE, 'pip install "torch>=1.12"')
    elif numbers(version) < (2, 6):
        remedy = (
            "a checkpoint can run code when it is loaded: load those that you trust, or take "
            "torch 2.6"
        )
        yield Finding("torch", version, NOTE, remedy)
    else:
        remedy = (
            "stock fairseq loads no checkpoint with more than plain data in it:\n"
            "--user-dir $(fairseq-seqkd user-dir) in its commands, or "
            "fairseq-seqkd export CHECKPOINT --to fairseq"
        )
        yield Finding("torch", version, NOTE, remedy)


def _numpy_limit(facts):
    """What numpy has to be below, and why; None where it is."""
    version = numbers(facts.versions.get("numpy"))
    upstream = "fairseq" in facts.versions and not _wants_fixed(facts)
    if upstream and version >= (1, 24):
        return "1.24", "upstream fairseq uses names that numpy 1.24 has not, such as np.float"
    if version >= (2,):
        return "2", "fairseq uses names that numpy 2 has not, such as np.compat"
    return None


def _numpy(facts):
    version, limit = facts.versions.get("numpy"), _numpy_limit(facts)
    broken = _broken(facts, "numpy", _requirement(facts, "numpy"))
    if broken:
        yield broken
    elif limit:
        below, why = limit
        yield Finding("numpy", version, TROUBLE, f'{why}: pip install "numpy<{below}"')
    else:
        yield Finding("numpy", version)


def _fairseq(facts):
    found = [
        f"{name} {facts.versions[name]}"
        for name in ("fairseq", "fairseq-fixed")
        if name in facts.versions
    ]
    where = " and ".join(found) or facts.fairseq_path or "not there"
    error = facts.errors.get("fairseq")
    but = f", does not import: {error}" if error else ""
    if len(found) == 2:
        yield Finding("fairseq", f"{where}{but}", TROUBLE, _one_of_two(facts))
    elif facts.shadowed:
        state = TROUBLE if error else NOTE
        yield Finding("fairseq", f"{facts.fairseq_path}{but}", state, _from_elsewhere(where))
    elif error:
        yield Finding("fairseq", f"{where}{but}", TROUBLE, _cure(facts, error))
    else:
        yield Finding("fairseq", where)


def _one_of_two(facts):
    return (
        "both are the module fairseq, and overwrite each other's files:\n"
        f"pip uninstall --yes fairseq fairseq-fixed\n{_install_fairseq(facts)}"
    )


def _from_elsewhere(installed):
    return (
        f"it stands before {installed}, which is installed: take its folder off PYTHONPATH, or "
        "run from another folder"
    )


def _cure(facts, error):
    """What to do about an error of ``import fairseq``."""
    if facts.fairseq_path is None:
        return _install_fairseq(facts)
    for name in ("torch", "numpy"):
        if name in facts.errors:
            return f"cure {name} first, as above"
    if "torchaudio" in error:
        return "it is for another torch, and text models need none: pip uninstall torchaudio"
    limit = _numpy_limit(facts)
    if limit and re.search(r"numpy|\bnp\b", error):
        return f'pip install "numpy<{limit[0]}"'
    if _wants_fixed(facts) and ("fairseq" in facts.versions or "mutable default" in error):
        why = "upstream fairseq does not import on Python 3.11 and later. fairseq-fixed does:"
        return f"{why}\npip uninstall --yes fairseq\n{_FIXED_LINES}"
    return _install_fairseq(facts)


def _plugin(facts):
    error = facts.errors.get("fairseq_seqkd")
    if error:
        remedy = "pip install what is missing below, or this package again"
        yield Finding("fairseq_seqkd", f"does not import: {error}", TROUBLE, remedy)


def _extensions(facts):
    name = "fairseq-fixed" if "fairseq-fixed" in facts.versions else "fairseq"
    for extension in filter(facts.errors.get, EXTENSIONS):
        remedy = (
            "compile it again, where a C++ compiler, torch, numpy and cython are there:\n"
            "pip install --force-reinstall --no-cache-dir --no-build-isolation --no-deps "
            f"--no-binary {name} {name}"
        )
        found = f"does not import: {facts.errors[extension]}"
        yield Finding(extension, found, TROUBLE, remedy)


def _batches(facts):
    if facts.drops_sentences:
        found = "fairseq leaves out up to 7 sentences, the rest of a last batch"
        remedy = "--required-batch-size-multiple 1, in training, validation and generation"
        yield Finding("batches", found, NOTE, remedy)


def _needed(facts):
    names = ("omegaconf", "hydra-core", "sacrebleu", "sentencepiece", "safetensors")
    for name in (*names, "tabulate", "tqdm"):
        version = facts.versions.get(name)
        if name == "sacrebleu" and version and numbers(version) < (2,):
            yield Finding(name, version, TROUBLE, 'pip install "sacrebleu>=2.0"')
        else:
            yield _broken(facts, name, _requirement(facts, name)) or Finding(name, version)


def _requirement(facts, name):
    """What pip installs in a version that this fairseq takes."""
    fixed = {"hydra-core": "hydra-core==1.3.2", "omegaconf": "omegaconf==2.3.0"}
    upstream = {"hydra-core": '"hydra-core<1.1"', "omegaconf": '"omegaconf<2.1"'}
    fixed["numpy"], upstream["numpy"] = '"numpy<2"', '"numpy<1.24"'
    return (fixed if _wants_fixed(facts) else upstream).get(name, name)


def _ctranslate2(facts):
    version = facts.versions.get("ctranslate2")
    if version is None:
        remedy = "Transformers translate several times faster with it: pip install ctranslate2"
        yield Finding("ctranslate2", "not there", NOTE, remedy)
    else:
        found = f"{version}, on this processor {', '.join(facts.compute_types)}"
        yield _broken(facts, "ctranslate2") or Finding("ctranslate2", found)


def _matplotlib(facts):
    version = facts.versions.get("matplotlib")
    if version is None:
        remedy = "plots need it, nothing else does: pip install matplotlib"
        yield Finding("matplotlib", "not there", NOTE, remedy)
    else:
        yield Finding("matplotlib", version)


def _gpu(facts):
    if "torch" in facts.errors:
        return
    if facts.gpus:
        yield Finding("GPU", ", ".join(facts.gpus))
    elif facts.cuda:
        remedy = "everything runs on the processor; if there is one, look at nvidia-smi"
        yield Finding("GPU", f"none, though torch is built for CUDA {facts.cuda}", NOTE, remedy)
    else:
        yield Finding("GPU", "none, and torch is built without CUDA")


def _threads(facts):
    found = f"{facts.cores} cores, OMP_NUM_THREADS is {facts.threads or 'not set'}"
    if facts.threads and facts.threads > facts.cores:
        remedy = (
            "threads that wait for each other are many times slower: "
            f"export OMP_NUM_THREADS={facts.cores}, divided by the processes"
        )
        yield Finding("threads", found, TROUBLE, remedy)
    else:
        yield Finding("threads", found)


def diagnose_checkpoint(facts):
    """What `CheckpointFacts` mean, as a `Finding`."""
    kind = ", ".join(filter(None, (facts.task, facts.criterion, facts.architecture)))
    if facts.error is not None:
        reason = textwrap.shorten(str(facts.error), 400, placeholder=" ...")
        found = f"does not load: {kind}{': ' * bool(kind)}{reason}"
        return Finding(facts.path, found, TROUBLE, _checkpoint_cure(facts))
    found = f"loads: {kind}, {facts.parameters:,} parameters, dictionary in {facts.dictionary}"
    if facts.refused or facts.foreign:
        return Finding(facts.path, found, NOTE, _stock_cure(facts))
    return Finding(facts.path, f"{found}; stock fairseq loads it, too")


def _checkpoint_cure(facts):
    if facts.task is None:
        return (
            "take a file that fairseq-train or fairseq-seqkd wrote, from a source you trust; "
            "copy it again if it should be one"
        )
    if "dictionary" in str(facts.error):
        return "--teacher-data DIR, the data-bin that has it; or copy its dict.*.txt beside it"
    return (
        "if its task or architecture is of another plug-in: a --user-dir whose __init__.py "
        "imports that and fairseq_seqkd"
    )


def _stock_cure(facts):
    """How stock fairseq loads a checkpoint that it does not know, or that torch refuses."""
    why = [f"torch refuses its {facts.refused}"] if facts.refused else []
    why += [f"{name} is not of fairseq" for name in facts.foreign]
    return (
        f"stock fairseq does not load it ({', '.join(why)}): "
        "add --user-dir $(fairseq-seqkd user-dir), or\n"
        f"fairseq-seqkd export {facts.path} --to fairseq --out student.pt"
    )


def not_looked_at(path):
    """The `Finding` of a checkpoint where fairseq does not import."""
    return Finding(path, "was not looked at: that needs fairseq", NOTE, "cure the above first")
