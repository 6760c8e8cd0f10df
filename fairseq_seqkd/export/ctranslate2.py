"""A student for CTranslate2: a folder that needs neither fairseq nor torch.

model.bin, config.json, ..._vocabulary.json   CTranslate2's
dict.LANG.txt                                 fairseq's dictionaries
subwords.model                                the sentencepiece model, if one is given
translate.py                                  how it is used, in a few lines
"""

import os
import shutil
import tempfile
from argparse import Namespace

import torch

from fairseq_seqkd.pseudo.backends.ctranslate2 import CannotConvert, convert_checkpoint
from fairseq_seqkd.shards import atomic_directory

# What CTranslate2 knows; None keeps the weights as they are.
QUANTIZATIONS = (
    *("float32", "float16", "bfloat16", "int16"),
    *("int8", "int8_float32", "int8_float16", "int8_bfloat16"),
)

_WITH_SUBWORDS = '''\
"""Translates standard input, a sentence a line: pip install ctranslate2 sentencepiece"""
import os, sys, ctranslate2, sentencepiece
here = os.path.dirname(os.path.abspath(__file__))
translator = ctranslate2.Translator(here, device="auto")
pieces = sentencepiece.SentencePieceProcessor(model_file=os.path.join(here, "subwords.model"))
sources = [pieces.encode(line.strip(), out_type=str) for line in sys.stdin]
limits = {{"max_input_length": 0, "max_decoding_length": {longest}}}
for result in translator.translate_batch(sources, beam_size=1, **limits):
    print(pieces.decode(result.hypotheses[0]))
'''
_WITHOUT_SUBWORDS = '''\
"""Translates standard input, a sentence a line in subwords: pip install ctranslate2"""
import os, sys, ctranslate2
here = os.path.dirname(os.path.abspath(__file__))
translator = ctranslate2.Translator(here, device="auto")
sources = [line.split() for line in sys.stdin]
limits = {{"max_input_length": 0, "max_decoding_length": {longest}}}
for result in translator.translate_batch(sources, beam_size=1, **limits):
    print(" ".join(result.hypotheses[0]))
'''


def write(student, folder, task, longest, quantization=None, subword_model=None):
    """Convert a student; the folder is there whole or not at all.

    Args:
        student: :class:`~fairseq_seqkd.export.stock.Student`
        folder: a new one
        task: with the student's dictionaries
        longest: what it may write, in tokens with the end of the sentence
        quantization: one of ``QUANTIZATIONS``
        subword_model: a sentencepiece model to lay beside it
    Raises:
        ValueError: CTranslate2 is not installed or cannot convert it; says why
        FileExistsError: the folder is there
    """
    try:
        with atomic_directory(folder) as new:
            _convert(student, task, new, quantization)
            for lang, dictionary in _dictionaries(task):
                dictionary.save(os.path.join(new, f"dict.{lang}.txt"))
            if subword_model:
                shutil.copyfile(subword_model, os.path.join(new, "subwords.model"))
            with open(os.path.join(new, "translate.py"), "w") as file:
                example = _WITH_SUBWORDS if subword_model else _WITHOUT_SUBWORDS
                file.write(example.format(longest=longest))
    except CannotConvert as error:
        raise ValueError(f"--to ctranslate2: {error} (--to fairseq ships any model)") from error


def size_of(folder):
    """The bytes of a converted model, without what lies beside it."""
    own = [name for name in os.listdir(folder) if name.endswith((".bin", ".json"))]
    return sum(os.path.getsize(os.path.join(folder, name)) for name in own)


def _dictionaries(task):
    pair = task.cfg.source_lang, task.cfg.target_lang
    return zip(pair, (task.source_dictionary, task.target_dictionary))


def _convert(student, task, folder, quantization):
    """What the converter reads: a checkpoint with everything in one Namespace."""
    task_config, model_config = student.config["task"], student.config["model"]
    settings = {**task_config, "task": task_config["_name"], **model_config}
    settings.setdefault("arch", model_config["_name"])
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = os.path.join(temporary, "student.pt")
        torch.save({"args": Namespace(**settings), "model": student.model}, checkpoint)
        try:
            convert_checkpoint(checkpoint, task, os.path.join(temporary, "new"), quantization)
        except CannotConvert as error:
            raise CannotConvert(str(error).replace(repr(checkpoint), "it")) from error
        for name in os.listdir(os.path.join(temporary, "new")):
            shutil.move(os.path.join(temporary, "new", name), folder)
