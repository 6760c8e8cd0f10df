"""Decoding speed of several models, timed in turns while other programs use the machine."""

import time

import torch

from fairseq_seqkd.chunked.plan import plan_chunks

# A CPU's speed drifts within seconds: the models take turns at small chunks, so that all of
# them meet the same drift. A GPU is fastest with large batches, and is not shared.
_CHUNKS = {"cpu": 4, "cuda": 1}


def timing_chunks(lengths, device):
    """Cut the split into chunks that are timed one by one.

    Args:
        lengths: (sentences,) source lengths in tokens
        device: torch.device
    Returns:
        a list of arrays of sentence ids, similar lengths beside each other
    """
    chunks = _CHUNKS[device.type]
    return plan_chunks(lengths, max(1, -(-len(lengths) // chunks)))


def decode_in_turns(decoders, chunks, rounds, progress):
    """Decode every chunk with every decoder: once to warm up, then ``rounds`` times timed.

    Args:
        decoders: callables from the ids of a chunk to {id: output}
        chunks: see `timing_chunks`
        rounds: number of timed rounds
        progress: called with a chunk whenever a decoder has decoded it
    Returns:
        for every decoder: {id: output}, and (chunks, rounds) seconds
    """
    outputs = [{} for _ in decoders]
    seconds = [[[] for _ in chunks] for _ in decoders]
    for round_ in range(-1, rounds):  # round -1 warms up
        for number, chunk in enumerate(chunks):
            for turn in range(len(decoders)):
                # The first in a turn finds the caches full of another model's weights, so
                # each decoder is first as often as the others.
                which = (turn + number + round_) % len(decoders)
                output, passed = timed(decoders[which], chunk)
                if round_ < 0:
                    outputs[which].update(output)
                else:
                    seconds[which][number].append(passed)
                progress(chunk)
    return list(zip(outputs, seconds))


def timed(decoder, chunk):
    """The decoder's output, and the seconds it took."""
    begin = time.perf_counter()
    output = decoder(chunk)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return output, time.perf_counter() - begin
