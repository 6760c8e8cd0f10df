"""What is known of fairseq's models from outside: where their logits come from.

A model that is not known is asked for its normalised probabilities, as fairseq's criteria do.
"""

import contextlib

from fairseq.models import (
    BaseFairseqModel,
    FairseqDecoder,
    FairseqEncoderDecoderModel,
    FairseqLanguageModel,
)
from fairseq.models.lstm import LSTMDecoder, LSTMModel
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase

# Those whose last step is ``decoder.output_layer``, position by position.
_MODEL_FORWARDS = [
    one.forward
    for one in (
        *(FairseqEncoderDecoderModel, FairseqLanguageModel),
        *(TransformerModelBase, LSTMModel),
    )
]
_DECODER_FORWARDS = [
    one.forward for one in (FairseqDecoder, TransformerDecoderBase, LSTMDecoder)
]
# Those whose probabilities are the softmax of the output.
_NORMALISERS = [
    one.get_normalized_probs for one in (BaseFairseqModel, FairseqDecoder, TransformerModelBase)
]
_KNOWN_INPUTS = {"src_tokens", "src_lengths", "prev_output_tokens"}


def unwrapped(model):
    """The model itself, whatever data-parallel wrappers it is in."""
    while hasattr(model, "module"):
        model = model.module
    return model


def gives_logits(model):
    """Whether the probabilities are known to be the softmax of the model's output."""
    decoder = getattr(model, "decoder", None)
    return (
        isinstance(decoder, FairseqDecoder)
        and getattr(decoder, "adaptive_softmax", None) is None
        and all(type(one).get_normalized_probs in _NORMALISERS for one in (model, decoder))
        and all(
            type(one).get_normalized_probs_scriptable is base.get_normalized_probs_scriptable
            for one, base in ((model, BaseFairseqModel), (decoder, FairseqDecoder))
        )
    )


def logits_of(model, net_output):
    """(batch, length, vocab) log-probabilities up to a constant, of what a model returned."""
    if gives_logits(model):
        return net_output[0]
    return model.get_normalized_probs(net_output, log_probs=True)


def ends_in_output_layer(model):
    """Whether the logits are known to be ``decoder.output_layer`` of features, one by one."""
    return (
        gives_logits(model)
        and type(model).forward in _MODEL_FORWARDS
        and type(model.decoder).forward in _DECODER_FORWARDS
    )


def encode(model, net_input):
    """What the encoder returns for a batch; None where :func:`output_of` does without."""
    if has_known_encoder(model) and set(net_input) <= _KNOWN_INPUTS:
        return model.encoder.forward_torchscript(net_input)
    return None


def has_known_encoder(model):
    """Whether encoder and decoder can be called one after the other."""
    return hasattr(model, "encoder") and ends_in_output_layer(model)


def output_of(model, net_input, encoded):
    """A model's features or logits for a batch, and what makes logits of some of them.

    Args:
        net_input: the arguments of its forward, as fairseq collates them
        encoded: what :func:`encode` returned for them
    Returns:
        (batch * length, width) features and the layer that makes them logits; or the logits,
        and what leaves them as they are
    """
    if encoded is not None:
        contexts = net_input["prev_output_tokens"]
        features, _ = model.decoder.extract_features(contexts, encoder_out=encoded)
    elif isinstance(model, FairseqLanguageModel) and ends_in_output_layer(model):
        features, _ = model.decoder.extract_features(net_input["src_tokens"], encoder_out=None)
    else:
        return logits_of(model, model(**net_input)).flatten(0, 1), lambda logits: logits
    return features.flatten(0, 1), model.decoder.output_layer


@contextlib.contextmanager
def encoder_outputs_of(model):
    """Catch what the encoder (if there is one) returns while the model runs."""
    caught = []
    encoder = getattr(unwrapped(model), "encoder", None)
    if encoder is None:
        yield caught
        return
    hook = encoder.register_forward_hook(lambda *call: caught.append(call[-1]))
    try:
        yield caught
    finally:
        hook.remove()
