import pytest
import sentencepiece
from fairseq.data import Dictionary

from fairseq_seqkd.pseudo.text_encoder import TextEncoder, cut_translations


def test_text_is_cut_with_sentencepiece(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.write_text("\n".join(["a dog runs", "two dogs run", "a cat sleeps"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "m"), vocab_size=30, model_type="bpe"
    )
    model = str(tmp_path / "m.model")
    dictionary = Dictionary()
    pieces = sentencepiece.SentencePieceProcessor(model_file=model)
    for piece in pieces.encode("a dog sleeps", out_type=str):
        dictionary.add_symbol(piece)
    encoder = TextEncoder(dictionary, cut_translations(model))
    tokens = encoder("a dog sleeps")
    assert dictionary.string(tokens, "sentencepiece") == "a dog sleeps"
    # Text that is already cut stays as it is.
    cut = " ".join(pieces.encode("a dog sleeps", out_type=str))
    assert encoder(cut).tolist() == tokens.tolist()
    assert encoder.unknown == 0


def test_a_file_that_is_no_sentencepiece_model(tmp_path):
    (tmp_path / "spm.vocab").write_text("a 1")
    with pytest.raises(ValueError, match="spm.vocab' is not a sentencepiece model"):
        cut_translations(str(tmp_path / "spm.vocab"))


@pytest.mark.parametrize("symbol", ["</s>", "<pad>", "<s>", "nosuch"])
def test_control_symbols_in_text_are_unknown_words(split, symbol):
    dictionary = split.dataset.tgt_dict
    encoder = TextEncoder(dictionary)
    assert encoder(f"{dictionary.symbols[5]} {symbol}").tolist() == [
        5,
        dictionary.unk(),
        dictionary.eos(),
    ]
    assert (encoder.unknown, encoder.tokens) == (1, 2)


def test_bytes_of_unknown_characters_are_counted():
    dictionary = Dictionary()
    for symbol in ("a", "<0xC3>", "<0xA9>"):
        dictionary.add_symbol(symbol)
    encoder = TextEncoder(dictionary)
    encoder("a <0xC3> <0xA9> b")
    encoder("b c d e c")
    assert (encoder.tokens, encoder.in_bytes, encoder.unknown) == (9, 2, 6)
    assert encoder.unfamiliar_fraction == pytest.approx(8 / 9)
    assert encoder.examples == ["b", "c", "d"]


@pytest.mark.parametrize("n_in_dictionary, level", [(2000, "INFO"), (500, "WARNING")])
def test_unknown_symbols_are_reported(split, caplog, n_in_dictionary, level):
    encoder = TextEncoder(split.dataset.tgt_dict)
    symbol = split.dataset.tgt_dict.symbols[5]
    encoder(" ".join([symbol] * n_in_dictionary + ["nosuch"]))
    with caplog.at_level("INFO"):
        encoder.report()
    assert f"1 of {n_in_dictionary + 1} symbols" in caplog.text
    assert [record.levelname for record in caplog.records] == [level]
