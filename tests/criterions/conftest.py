"""Fixtures of the criteria's tests."""

import pytest
from conftest import S2T, batch_of, example, preprocess, synthetic, train
from omegaconf import OmegaConf
from processes import fairseq

from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion


@pytest.fixture
def batch(task):
    """The first six sentences of the validation set."""
    return batch_of(task, range(6), "valid")


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """A folder of features of 18 to 70 frames, with their manifests."""
    folder = tmp_path_factory.mktemp("speech")
    synthetic().write_corpus(folder / "text", {"train": 30, "valid": 12, "test": 4})
    example("speech_to_text/features.py").write_data(folder / "text", folder / "data")
    return folder / "data"


@pytest.fixture(scope="session")
def speech_teacher(speech, tmp_path_factory):
    """The checkpoint of a speech translation model."""
    folder = tmp_path_factory.mktemp("speech-teacher")
    loss = ["--task", "speech_to_text", "--criterion", "label_smoothed_cross_entropy"]
    train(speech, folder, *loss, "--max-tokens", 600, "--max-update", 20, model=S2T)
    return folder / "checkpoint_last.pt"


@pytest.fixture
def training(task, teacher):
    """training(**values): a criterion as fairseq would build it from flags."""

    def training(**values):
        common = {"sentence_avg": False, "seed": 1, "max_update": 10}
        common.update(finetune_from_model="student.pt", restore_file="checkpoint_last.pt")
        cfg = {**common, "teacher_path": str(teacher), **values}
        return DistillCriterion(task, OmegaConf.structured(DistillConfig(**cfg))).train()

    return training


def reworded(text, folder):
    """A folder of text with noisy sources, ``train.noisy`` and so on, and the same targets."""
    folder.mkdir()
    for split in ("train", "valid", "test"):
        lines = (text / f"{split}.src").read_text().split("\n")
        noisy = [" ".join(word[:2] for word in line.split()) for line in lines]
        (folder / f"{split}.noisy").write_text("\n".join(noisy))
        (folder / f"{split}.tgt").write_text((text / f"{split}.tgt").read_text())
    return folder


@pytest.fixture(scope="session")
def noisy(text, data, tmp_path_factory):
    """A data-bin with the sentences of ``data``, whose sources have lost letters."""
    folder = tmp_path_factory.mktemp("noisy")
    pair = ["--source-lang", "noisy", "--tgtdict", data / "dict.tgt.txt"]
    return preprocess(reworded(text, folder / "text"), folder / "data-bin", *pair)


@pytest.fixture(scope="session")
def noisy_student(noisy, tmp_path_factory):
    """The checkpoint of a model that reads noisy sources."""
    folder = tmp_path_factory.mktemp("noisy-student")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 20]
    train(noisy, folder, *loss)
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def transcripts(speech, tmp_path_factory):
    """The data-bin of what is spoken in ``speech``, with its targets."""
    folder = tmp_path_factory.mktemp("transcripts") / "data-bin"
    return preprocess(speech.parent / "text", folder, "--tgtdict", speech / "dict.txt")


@pytest.fixture(scope="session")
def text_teacher(transcripts, tmp_path_factory):
    """The checkpoint of a translation model of transcripts."""
    folder = tmp_path_factory.mktemp("text-teacher")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 20]
    train(transcripts, folder, *loss, "--lr", 0.02)
    return folder / "checkpoint_last.pt"


LM = [
    *["--task", "language_modeling", "--arch", "transformer_lm", "--decoder-layers", "1"],
    *["--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16"],
    *["--decoder-attention-heads", "2", "--share-decoder-input-output-embed"],
]


@pytest.fixture(scope="session")
def language_models(speech, tmp_path_factory):
    """Checkpoints of language models of the targets of ``speech``: {add_bos_token: path}."""
    folder, text = tmp_path_factory.mktemp("language-model"), speech.parent / "text"
    splits = ["--trainpref", text / "train.tgt", "--validpref", text / "valid.tgt"]
    where = ["--destdir", folder / "data-bin", "--srcdict", speech / "dict.txt"]
    fairseq("preprocess", "--only-source", *splits, *where)
    loss = ["--criterion", "cross_entropy", "--tokens-per-sample", 64, "--max-update", 10]
    checkpoints = {}
    for bos in (False, True):
        flags = [*loss, *["--add-bos-token"] * bos]
        train(folder / "data-bin", folder / str(bos), *flags, model=LM)
        checkpoints[bos] = folder / str(bos) / "checkpoint_last.pt"
    return checkpoints
