"""Reads several tokens at once behind a prefix whose keys and values are kept.

With an incremental state, fairseq's Transformer decoder reads one token a call, the last. Its
layers take any number of tokens: `BlockReader` calls them as the decoder does.
"""

import torch
from fairseq.models.transformer import TransformerDecoderBase
from fairseq.modules.transformer_layer import TransformerDecoderLayerBase

from fairseq_seqkd.models.adapters import can_encode_once


def common_length(one, other):
    """How many of their first tokens two (length,) sequences share."""
    n = min(len(one), len(other))
    return int((one[:n] == other[:n]).long().cumprod(0).sum())


def can_read_blocks(model):
    """Whether `BlockReader` reads as a model does: one of fairseq's own Transformers."""
    decoder = getattr(model, "decoder", None)
    return (
        can_encode_once(model)
        and isinstance(decoder, TransformerDecoderBase)
        and all(
            getattr(type(decoder), name) is getattr(TransformerDecoderBase, name)
            for name in ("extract_features", "extract_features_scriptable")
        )
        and all(type(x).forward is TransformerDecoderLayerBase.forward for x in decoder.layers)
        and not decoder.cross_self_attention
    )


class BlockReader:
    """The features of one sentence's contexts; what two contexts share is read once.

    Args:
        model: for which `can_read_blocks` holds, in eval mode
        encoded: its encoder's output for a batch of one
    """

    def __init__(self, model, encoded):
        self._decoder = model.decoder
        self._encoded = {name: (*encoded[name], None)[0] for name in _ENCODED}
        self._state, self._read = {}, None

    @torch.no_grad()
    def features(self, contexts, n):
        """(n, width) features of the last n positions of (1, length) contexts."""
        n_read = 0 if self._read is None else common_length(self._read, contexts[0])
        n_read = min(n_read, contexts.size(1) - n)
        self._cut(n_read)
        self._read = contexts[0]
        return self._extract(contexts, n_read)[-n:]

    def output_layer(self, features):
        """(n, vocab) logits of (n, width) features."""
        return self._decoder.output_layer(features)

    def _cut(self, length):
        """Forget the keys and values behind so many tokens."""
        for layer in self._decoder.layers:
            buffer = layer.self_attn._get_input_buffer(self._state)
            if buffer:
                cut = {name: buffer[name][:, :, :length] for name in ("prev_key", "prev_value")}
                layer.self_attn._set_input_buffer(self._state, cut)

    def _extract(self, contexts, n_read):
        """(length - n_read, width), as `TransformerDecoderBase.extract_features`."""
        decoder, tokens = self._decoder, contexts[:, n_read:]
        x = decoder.embed_scale * decoder.embed_tokens(tokens)
        x = _apply(decoder.project_in_dim, _apply(decoder.quant_noise, x))
        if decoder.embed_positions is not None:
            x = x + decoder.embed_positions(contexts)[:, n_read:]
        x = _apply(decoder.layernorm_embedding, x).transpose(0, 1)
        future = x.new_full((len(x), contexts.size(1)), -torch.inf).triu(n_read + 1)
        for layer in decoder.layers:
            x, *_ = layer(x, *self._encoded.values(), self._state, self_attn_mask=future)
        x = _apply(decoder.layer_norm, x).transpose(0, 1)
        return _apply(decoder.project_out_dim, x)[0]


_ENCODED = ("encoder_out", "encoder_padding_mask")


def _apply(module, x):
    """A module's output; the input if the decoder has no such module."""
    return x if module is None else module(x)
