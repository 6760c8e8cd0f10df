"""The steps of ``generate`` for DATA that is speech, whose transcripts a text teacher reads."""

from argparse import Namespace

from fairseq_seqkd.models.speech import is_speech, open_speech
from fairseq_seqkd.pseudo.speech import Speech
from fairseq_seqkd.teacher import NONE


def speech_of(arguments):
    """The `Speech` that DATA is, and the arguments with which its transcripts are translated.

    Args:
        arguments: of the command
    Returns:
        None and the same arguments if DATA is a data-bin
    Raises:
        ValueError: the teacher has no text to read
    """
    data, name, source = arguments.data, arguments.split, arguments.teacher_source
    if not is_speech(data, name):
        return None, arguments
    if source in (None, NONE):
        raise ValueError(
            f"{data!r} has no binarised sentence pairs, but a manifest of speech: give the "
            "data-bin with its transcripts, which a teacher of text translates, with "
            "--teacher-source FOLDER"
        )
    task = open_speech(data, name, arguments.config_yaml)
    of_transcripts = {**vars(arguments), "data": source, "teacher_source": None}
    return Speech(data, name, task.dataset(name)), Namespace(**of_transcripts)


def next_command_of_speech(store, spec, config_yaml):
    """The text that says how to train on finished pseudo-targets of speech."""
    config = f" --config-yaml {config_yaml}" if config_yaml else ""
    return (
        "Train a student on it, with stock fairseq:\n  fairseq-train "
        f"{store.path(spec.folder)}-speech --task speech_to_text{config} ..."
    )
