"""Blocks of tokens behind kept keys and values: the features of a whole forward pass."""

import pytest
import torch
from conftest import LSTM, TINY, train
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.models.blocks import BlockReader, can_read_blocks, common_length
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import Teacher, load_teacher

KINDS = {
    "post-norm": ["--decoder-layers", "2"],
    "pre-norm, learned positions": [
        *["--decoder-normalize-before", "--layernorm-embedding", "--decoder-learned-pos"],
        *["--decoder-output-dim", "8"],
    ],
    "no positions": ["--no-token-positional-embeddings", "--no-scale-embedding"],
}


@pytest.fixture(scope="module", params=list(KINDS))
def model(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "3"]
    flags = [flag for flag in TINY if flag != "--share-decoder-input-output-embed"]
    train(data, folder, *loss, *KINDS[request.param], model=flags)
    return load_models(str(folder / "checkpoint_last.pt"))[0][0].eval()


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_features_are_those_of_a_whole_pass(model, data):
    """Whatever was read before: longer, shorter, with another end, or nothing."""
    assert can_read_blocks(model)
    tokens = st.lists(st.integers(4, 7), max_size=5)
    source = torch.tensor([[5, 8, 13, 2]])
    with torch.no_grad():
        encoded = model.encoder(source, torch.tensor([4]))
        reader = BlockReader(model, encoded)
        for _ in range(data.draw(st.integers(1, 5))):
            contexts = torch.tensor([[2, *data.draw(tokens)]])
            n = data.draw(st.integers(1, contexts.size(1)))
            expected = model.decoder(contexts, encoder_out=encoded)[0][0, -n:]
            found = reader.output_layer(reader.features(contexts, n))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_only_new_tokens_are_read(loaded, monkeypatch):
    model, lengths = loaded.models[0], []
    encoded = model.encoder(torch.tensor([[5, 2]]), torch.tensor([2]))
    reader, layer = BlockReader(model, encoded), model.decoder.layers[0]
    plain = layer.self_attn.q_proj.forward
    monkeypatch.setattr(
        layer.self_attn.q_proj, "forward", lambda x: lengths.append(len(x)) or plain(x)
    )
    for context in ([2], [2, 4, 5, 6], [2, 4, 5, 7, 8], [2, 4, 5]):
        reader.features(torch.tensor([context]), 1)
    assert lengths == [1, 3, 2, 1]


def test_a_teacher_scores_prefixes_alike_with_and_without(loaded, monkeypatch):
    """Also an ensemble; a model that is no Transformer reads all of it again."""
    source = {"src_tokens": torch.tensor([[5, 8, 2]]), "src_lengths": torch.tensor([3])}
    both = Teacher([loaded.models[0]] * 2, loaded.task)
    prefixes = [([2, 4, 5], 2), ([2, 4, 9, 6], 1), ([2, 4, 9, 6, 7, 7], 4)]
    kept = [one.prefix_scorer(source) for one in (loaded, both)]
    monkeypatch.setattr("fairseq_seqkd.teacher.model.can_read_blocks", lambda model: False)
    plain = loaded.prefix_scorer(source)
    for prefix, n in prefixes:
        expected = plain(torch.tensor([prefix]), n)
        assert expected.shape == (n, len(loaded.task.target_dictionary))
        for score in kept:
            found = score(torch.tensor([prefix]), n)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_models_that_cannot(data, tmp_path):
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "1"]
    train(data, tmp_path, *loss, model=LSTM)
    assert not can_read_blocks(load_teacher(str(tmp_path / "checkpoint_last.pt")).models[0])
    assert not can_read_blocks(torch.nn.Linear(1, 1))


def test_common_length():
    pairs = [([], [], 0), ([1], [], 0), ([1, 2, 3], [1, 2, 4, 3], 2), ([1, 2], [1, 2, 3], 2)]
    for one, other, expected in pairs:
        assert common_length(torch.tensor(one), torch.tensor(other)) == expected
