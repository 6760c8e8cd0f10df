"""How fast models decode, while other programs come and go on the same machine."""

import time

import torch

from fairseq_seqkd.chunked.plan import plan_chunks

# A processor's speed drifts within seconds: models take turns at pieces of the text, so that
# all of them see the same of it. A GPU wants its batches large, and is nobody else's.
_PIECES = {"cpu": 4, "cuda": 1}


def pieces_of(lengths, device):
    """The split in pieces, as lists of ids with similar lengths beside each other."""
    pieces = _PIECES[device.type]
    return plan_chunks(lengths, max(1, -(-len(lengths) // pieces)))


def take_turns(decoders, pieces, rounds, progress):
    """Let everybody decode everything once for the result, and ``rounds`` times for the time.

    Args:
        decoders: [callable, ...]; each is called with the ids of a piece
        pieces: as of `pieces_of`
        rounds: how often
        progress: called once a piece and decoder
    Returns:
        for every decoder: {id: what it returned}, and (pieces, rounds) seconds
    """
    found = [{} for _ in decoders]
    seconds = [[[] for _ in pieces] for _ in decoders]
    for round_ in range(-1, rounds):  # the first warms up
        for number, piece in enumerate(pieces):
            for turn in range(len(decoders)):
                # Whoever comes first in a turn finds the caches full of another's weights.
                which = (turn + number + round_) % len(decoders)
                begin = time.perf_counter()
                result = decoders[which](piece)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                passed = time.perf_counter() - begin
                if round_ < 0:
                    found[which].update(result)
                else:
                    seconds[which][number].append(passed)
                progress()
    return list(zip(found, seconds))
