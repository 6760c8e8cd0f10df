import pytest

from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.settings import Settings


@pytest.fixture(scope="session")
def checkpoints(teacher, word_kd_student):
    return {
        "teacher": str(teacher),
        "student": str(word_kd_student[0] / "checkpoint_last.pt"),
    }


@pytest.fixture(scope="session")
def report(data, text, checkpoints):
    """Both models, greedily and with a beam, with every engine that can be used."""
    reference = str(text / "test.tgt")
    settings = Settings(str(data), beams=(1, 3), rounds=2, reference_files=[reference])
    return evaluate(checkpoints, settings)[0]


@pytest.fixture
def fairseq_alone(data):
    """A function that evaluates with fairseq, greedily and in one round by default."""

    def call(checkpoints, **settings):
        quick = {"engines": ["fairseq"], "beams": (1,), "rounds": 1}
        return evaluate(checkpoints, Settings(str(data), **{**quick, **settings}))[0]

    return call
