"""Whether what is installed goes together, and what to do where it does not.

What is there (``facts.py``) is looked up apart from what it means (``diagnosis.py``), so that
every known trouble can be tested without having it. Beside ``compat.py``, which adapts to
versions, this is the one place that asks which are there: it only judges them. It imports
what it looks at when it looks, since it must run where fairseq does not.
"""

from fairseq_seqkd.doctor.diagnosis import (
    diagnose,
    diagnose_checkpoint,
    not_looked_at,
    report,
    troubles,
)
from fairseq_seqkd.doctor.facts import look, look_at


def examine(checkpoints, data=None):
    """Every `Finding` of this machine.

    Args:
        checkpoints: paths of files
        data: the folder with their dictionaries; None looks beside each of them, and where it
            was trained
    """
    facts = look()
    works = not {"fairseq", "fairseq_seqkd"} & set(facts.errors)
    return diagnose(facts) + [
        diagnose_checkpoint(look_at(path, data)) if works else not_looked_at(path)
        for path in checkpoints
    ]
