import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.export.subwords import copy_subword_model

sentencepiece = pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def models(text, tmp_path_factory):
    """A sentencepiece model with byte pieces, its copy, and the copy's path."""
    folder = tmp_path_factory.mktemp("spm")
    sentencepiece.SentencePieceTrainer.train(
        input=text / "train.src",
        model_prefix=folder / "spm",
        vocab_size=330,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
    )
    copy_subword_model(folder / "spm.model", folder / "copy.model")
    paths = folder / "spm.model", folder / "copy.model"
    processors = [sentencepiece.SentencePieceProcessor(model_file=str(path)) for path in paths]
    return (*processors, paths)


def test_the_copy_names_no_file(models):
    original, copy = (path.read_bytes() for path in models[2])
    assert b"train.src" in original and b"train.src" not in copy
    assert str(models[2][0].parent).encode() not in copy


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_the_copy_cuts_and_joins_alike(models, sentence):
    original, copy, _ = models
    pieces = original.encode(sentence, out_type=str)
    assert copy.encode(sentence, out_type=str) == pieces
    assert copy.decode(pieces) == original.decode(pieces)


@pytest.mark.parametrize("content", [b"hello there", b"\xff" * 9, b"\x0a\x7fcut"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file' is damaged, or no sentencepiece model"):
        copy_subword_model(str(tmp_path / "file"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
