"""From token ids to plain text, as fairseq and sentencepiece give it."""

import numpy as np
import pytest
import sacrebleu
import sentencepiece
from fairseq.data import Dictionary, data_utils

from fairseq_seqkd.decoding.text import Detokeniser, decode_byte_pieces, has_byte_pieces
from fairseq_seqkd.pseudo.selectors import Closest, build_selector
from fairseq_seqkd.pseudo.text_encoder import TextEncoder, cut_translations

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

TEXT = ["caf\u00e9 \U0001f600", "\u65e5\u672c two dogs", "a dog runs", "\u0436 \u2581 cat"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model(request, tmp_path_factory):
    """The path of a sentencepiece model with byte fallback, which knows few characters."""
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text").write_text("\n".join(["a dog runs", "two dogs run", "a cat eats"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "spm"),
        vocab_size=290,
        model_type=request.param,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return str(folder / "spm.model")


@pytest.fixture(scope="module")
def pieces(model):
    return sentencepiece.SentencePieceProcessor(model_file=model)


@pytest.fixture(scope="module")
def dictionary(pieces):
    dictionary = Dictionary()
    for id_ in range(3, pieces.vocab_size()):
        dictionary.add_symbol(pieces.id_to_piece(id_))
    return dictionary


@pytest.fixture(scope="module", params=["with the model", "without it"])
def detokenise(request, model, dictionary):
    if request.param == "with the model":
        return Detokeniser(dictionary, spm_model=model)
    return Detokeniser(dictionary, "sentencepiece")


def ids(dictionary, symbols):
    return np.array([*map(dictionary.index, symbols), dictionary.eos()])


@pytest.mark.parametrize("text", TEXT)
def test_bytes_become_characters(detokenise, dictionary, pieces, text):
    tokens = ids(dictionary, pieces.encode(text, out_type=str))
    assert dictionary.unk() not in tokens.tolist()
    assert detokenise.text(tokens) == text.replace("\u2581", "").replace("  ", " ")


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(data=st.data())
def test_random_pieces_are_decoded_as_by_sentencepiece(detokenise, dictionary, pieces, data):
    """Also where the bytes are no UTF-8; spaces around the text do not count."""
    some = st.sampled_from(dictionary.symbols[dictionary.nspecial :])
    wide = st.characters(min_codepoint=128).map(
        lambda character: [f"<0x{byte:02X}>" for byte in character.encode("utf-8", "replace")]
    )
    part = st.one_of(some.map(lambda piece: [piece]), st.sampled_from(BYTES).map(lambda b: [b]))
    symbols = sum(data.draw(st.lists(st.one_of(part, wide, wide.map(lambda w: w[:-1])))), [])
    expected = pieces.decode(symbols).strip(" ")
    assert detokenise.text(ids(dictionary, symbols)).strip(" ") == expected


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(data=st.data())
def test_without_bytes_text_is_fairseqs(dictionary, data):
    words = [symbol for symbol in dictionary.symbols if symbol not in BYTES]
    words = [*words[dictionary.nspecial :], dictionary.unk_word, "\u2581unheard", "of"]
    known = Dictionary()
    symbols = data.draw(st.lists(st.sampled_from(words)))
    text = Detokeniser(with_symbols(known, symbols), "sentencepiece").text(ids(known, symbols))
    assert text == data_utils.post_process(" ".join(symbols), "sentencepiece")


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(data=st.data())
def test_the_model_leaves_unknown_symbols(model, dictionary, data):
    """Symbols that the model lacks, and the unknown word, are as fairseq prints them."""
    words = [symbol for symbol in dictionary.symbols if symbol not in BYTES]
    words = [*words[dictionary.nspecial :], dictionary.unk_word, "\u2581unheard", "of"]
    symbols = data.draw(st.lists(st.sampled_from(words)))
    known = with_symbols(Dictionary(), symbols)
    text = Detokeniser(known, spm_model=model).text(ids(known, symbols))
    assert text == data_utils.post_process(" ".join(symbols), "sentencepiece")


def with_symbols(dictionary, symbols):
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


@pytest.mark.parametrize("remove_bpe", [None, "none", "@@ ", "subword_nmt", "letter", "_EOW"])
def test_other_subwords_have_no_byte_pieces(dictionary, remove_bpe):
    tokens = ids(dictionary, ["<0xC3>", "<0xA9>"])
    expected = data_utils.post_process("<0xC3> <0xA9>", remove_bpe)
    assert Detokeniser(dictionary, remove_bpe).text(tokens) == expected


def test_characters_that_spell_a_byte_piece_are_text():
    dictionary = with_symbols(Dictionary(), ["\u2581<0", "x", "C3>"])
    tokens = ids(dictionary, ["\u2581<0", "x", "C3>"])
    assert Detokeniser(dictionary, "sentencepiece").text(tokens) == "<0xC3>"
    assert not has_byte_pieces(dictionary)


def test_perfect_output_has_full_bleu(detokenise, dictionary, pieces):
    lines = [text.replace("\u2581", "") + " and so on" for text in TEXT]
    texts = [
        detokenise.text(ids(dictionary, pieces.encode(line, out_type=str))) for line in lines
    ]
    assert sacrebleu.corpus_bleu(texts, [lines]).score == pytest.approx(100)


def test_references_with_bytes_and_an_unknown_word(detokenise, dictionary):
    symbols = ["\u2581", "a", "\u2581", "<0xC3>", "<0xA9>", "\u2581", dictionary.unk_word]
    assert detokenise.reference(ids(dictionary, symbols)) == "a \u00e9 UNKNOWNTOKENINREF"


def test_closest_compares_characters(model, dictionary, pieces):
    """Bytes of a wrong character have much in common with the right one, as text."""
    gold, right = "a dog \u00e9\u00e8 runs", "a dog \u00e9\u00e8 run"
    wrong = "a dog \u00ea\u00eb runs"
    nbest = [
        (ids(dictionary, pieces.encode(text, out_type=str)), -float(i))
        for i, text in enumerate((wrong, right))
    ]
    gold_ids = ids(dictionary, pieces.encode(gold, out_type=str))
    for options in ({"remove_bpe": "sentencepiece"}, {"spm_model": model}):
        closest = build_selector("closest", dictionary, metric="chrf", **options)
        texts = [closest.detokenise.text(tokens) for tokens, _ in nbest]
        assert texts == [wrong, right]
        scores = [sacrebleu.sentence_chrf(text, [gold]).score for text in texts]
        assert closest(nbest, gold_ids) == int(np.argmax(scores))
        assert closest.settings["remove_bpe"] == "sentencepiece"
    assert len(closest.settings["spm_model"]) == 64


def test_imported_text_with_byte_pieces(model, dictionary, pieces):
    """``fairseq-generate --remove-bpe sentencepiece`` prints them; they are decoded."""
    encoder = TextEncoder(dictionary, cut_translations(model))
    for text in TEXT[:3]:
        symbols = pieces.encode(text, out_type=str)
        printed = data_utils.post_process(" ".join(symbols), "sentencepiece")
        assert encoder(printed).tolist() == ids(dictionary, symbols).tolist()
    assert encoder.unknown == 0
    assert decode_byte_pieces("caf<0xC3><0xA9> <0xC3> <0x2>") == "caf\u00e9 \ufffd <0x2>"


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"remove_bpe": "@@ ", "spm_model": "x"}, ValueError, "expected sentencepiece with"),
        ({"spm_model": "nosuch"}, FileNotFoundError, "--spm-model: there is no file 'nosuch'"),
        ({"spm_model": __file__}, ValueError, "test_text.py' is not a sentencepiece model"),
    ],
)  # fmt: skip
def test_refuses(dictionary, options, error, message):
    with pytest.raises(error, match=message):
        Closest(dictionary, **options)
