"""Adapters for fairseq models: unwrap, encode once, get logits; a model of unknown kind is
asked for its normalised probabilities, as fairseq's criteria do."""

import contextlib

import torch
from fairseq.models import (
    BaseFairseqModel,
    FairseqDecoder,
    FairseqEncoderDecoderModel,
    FairseqLanguageModel,
)
from fairseq.models.lstm import LSTMDecoder, LSTMModel
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase

# Precisions by their names on the command line and in manifests.
DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}

# Models whose last step is ``decoder.output_layer``, position by position.
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
# Models whose probabilities are the softmax of the output.
_NORMALISERS = [
    one.get_normalized_probs for one in (BaseFairseqModel, FairseqDecoder, TransformerModelBase)
]
_TEXT_INPUTS = {"src_tokens", "src_lengths", "prev_output_tokens"}


def unwrapped(model):
    """The model itself, without data-parallel wrappers."""
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
    """(batch, length, vocab) log-probabilities up to a constant, of a model's output."""
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


def can_encode_once(model):
    """Whether encoder and decoder can be called one after the other."""
    return hasattr(model, "encoder") and ends_in_output_layer(model)


def encode(model, net_input):
    """The encoder's output for a batch; None where `features_of` does without."""
    if can_encode_once(model) and set(net_input) <= _TEXT_INPUTS:
        return model.encoder.forward_torchscript(net_input)
    return None


def features_of(model, net_input, encoded):
    """A model's features for a batch, and the layer that maps (n, width) features to logits.

    Args:
        net_input: the arguments of its forward, as fairseq collates them
        encoded: the result of `encode` for them
    Returns:
        (batch * length, width) features and the output layer; or the logits and the identity
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
def output_layer_at(model, index):
    """Inside, a model's output layer runs at some positions alone, where it is known how to.

    The call of the model, and of its data-parallel wrapper, stays as it is.

    Args:
        model: without wrappers
        index: (n,) positions of the flattened batch
    Yields:
        a function that gives the (n, vocab) logits of these positions, of the model's output
    """
    if not ends_in_output_layer(model):
        yield lambda output: logits_of(model, output).flatten(0, 1).index_select(0, index)
        return
    own, layer = vars(model.decoder), model.decoder.output_layer
    before = own.get("output_layer")

    def at_positions(features, **arguments):
        return layer(features.flatten(0, 1).index_select(0, index), **arguments)

    own["output_layer"] = at_positions
    try:
        yield lambda output: output[0]
    finally:
        del own["output_layer"]
        if before is not None:
            own["output_layer"] = before


@contextlib.contextmanager
def encoder_outputs_of(model):
    """Collect what the encoder (if there is one) returns while the model runs."""
    outputs = []
    encoder = getattr(unwrapped(model), "encoder", None)
    if encoder is None:
        yield outputs
        return
    hook = encoder.register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        yield outputs
    finally:
        hook.remove()


@contextlib.contextmanager
def eval_mode(model):
    """Dropout is off inside; every part of the model is as before afterwards."""
    were_training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in were_training:
            part.training = True


def check_dtype(device, dtype, flag):
    """Refuse a dtype that this torch cannot compute with on this device.

    Raises:
        ValueError: names the flag
    """
    one = torch.ones(1, 1, device=device, dtype=dtype)
    try:
        torch.nn.functional.layer_norm(one @ one, (1,), one[0], one[0])
    except RuntimeError as error:
        raise ValueError(
            f"{flag}: torch {torch.__version__} does not compute with {dtype} on "
            f"{device} ({error}). Expected float32 there."
        ) from error
