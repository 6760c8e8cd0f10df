"""Exports a student as a CTranslate2 folder, which needs neither fairseq nor torch.

model.bin, config.json, ..._vocabulary.json   written by CTranslate2
dict.LANG.txt                                 fairseq's dictionaries
subwords.model                                the sentencepiece model, if one is given
vmap.txt                                      the vocabulary map, if there is a shortlist
translate.py                                  a short program that translates standard input
export.json                                   its limits, and how the folder was made
"""

import os
import shutil
import tempfile

from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.export.subwords import copy_subword_model
from fairseq_seqkd.io.files import atomic_directory, write_json
from fairseq_seqkd.models.ctranslate2 import EngineUnavailable, convert_model
from fairseq_seqkd.models.dictionaries import save_dictionary
from fairseq_seqkd.shortlist.vocabulary_map import FILE

_PROGRAM = os.path.join(os.path.dirname(__file__), "translate.py")
# CTranslate2's types of stored weights.
QUANTIZATIONS = (
    *("float32", "float16", "bfloat16", "int16"),
    *("int8", "int8_float32", "int8_float16", "int8_bfloat16"),
)


def export_ctranslate2(
    student,
    folder,
    task,
    quantization=None,
    spm_model=None,
    shortlist=None,
    check=lambda folder: None,
):
    """Convert a student and write its folder, atomically.

    Args:
        student: `Student`
        folder: a new folder
        task: the fairseq task with the student's dictionaries
        quantization: one of `QUANTIZATIONS`; None stores the weights as they are
        spm_model: path of a sentencepiece model, which is copied into the folder
        shortlist: `Shortlist`, whose vocabulary map translate.py uses
        check: called with the folder before it gets its name; returns an `Agreement`, or None
    Raises:
        ValueError: CTranslate2 is not installed or cannot convert the student; gives the reason
        FileExistsError: the folder exists
        Disagreement: the check found that the converted model translates otherwise
    """
    try:
        with atomic_directory(folder) as new_folder:
            _convert(student, task, new_folder, quantization)
            for lang, dictionary in _dictionaries(task):
                save_dictionary(dictionary, os.path.join(new_folder, f"dict.{lang}.txt"))
            if spm_model:
                copy_subword_model(spm_model, os.path.join(new_folder, "subwords.model"))
            if shortlist:
                shortlist.map.write(os.path.join(new_folder, FILE))
            shutil.copyfile(_PROGRAM, os.path.join(new_folder, "translate.py"))
            agreement = check(new_folder)
            details = {
                "quantization": quantization,
                "limits": _length_limits(student, task),
                "check": agreement and agreement._asdict(),
            }
            write_json(os.path.join(new_folder, "export.json"), details)
    except EngineUnavailable as error:
        raise ValueError(
            f"--to ctranslate2: {error} (--to fairseq exports any model)"
        ) from error


def _length_limits(student, task):
    """The limits of translate.py: longest source and target in tokens without EOS; EOS."""
    settings = student.config["model"]
    positions = [settings.get(f"max_{side}_positions") or 1024 for side in ("source", "target")]
    longest = SearchOptions().longest(0, positions[1])
    return {
        "source": positions[0] - 1,
        "target": longest,
        "end": task.target_dictionary.eos_word,
    }


def _dictionaries(task):
    pair = task.cfg.source_lang, task.cfg.target_lang
    return zip(pair, (task.source_dictionary, task.target_dictionary))


def _convert(student, task, folder, quantization):
    """Convert into ``folder``, which exists: CTranslate2 itself wants a new one."""
    with tempfile.TemporaryDirectory() as temporary:
        converted = os.path.join(temporary, "converted")
        convert_model(student.model, student.config, task, converted, quantization)
        for name in os.listdir(converted):
            shutil.move(os.path.join(converted, name), folder)
