import time

import numpy as np
import pytest
import torch

from fairseq_seqkd.evaluate.report import Row
from fairseq_seqkd.evaluate.speed import decode_in_turns, timing_chunks

CPU = torch.device("cpu")


@pytest.mark.parametrize("sentences", [1, 7, 8, 9, 100])
def test_chunks_hold_every_sentence_once(sentences):
    lengths = np.random.default_rng(0).integers(1, 30, sentences)
    chunks = timing_chunks(lengths, CPU)
    assert sorted(np.concatenate(chunks)) == list(range(sentences))
    assert len(chunks) == min(4, sentences) or sentences == 9
    assert len(timing_chunks(lengths, torch.device("cuda"))) == 1


class Clock:
    """A clock that goes on only while a decoder works."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def decoder(self, name, seconds):
        def decode(ids):
            self.calls.append((name, tuple(ids)))
            self.now += seconds(len(self.calls))
            return {id_: (name, id_) for id_ in ids}

        return decode


def test_every_decoder_decodes_every_chunk_and_is_timed_alone(monkeypatch):
    clock = Clock(monkeypatch)
    decoders = [clock.decoder("a", lambda _: 1), clock.decoder("b", lambda _: 3)]
    steps = []
    result = decode_in_turns(decoders, [[0, 1], [2]], 3, steps.append)
    assert [outputs for outputs, _ in result] == [{i: (n, i) for i in range(3)} for n in "ab"]
    assert [seconds for _, seconds in result] == [[[1] * 3] * 2, [[3] * 3] * 2]
    assert steps == [list(ids) for _, ids in clock.calls] and len(steps) == 2 * 2 * 4


def test_the_first_round_is_not_timed(monkeypatch):
    clock = Clock(monkeypatch)
    slow_at_first = clock.decoder("a", lambda calls: 100 if calls <= 2 else 1)
    ((_, seconds),) = decode_in_turns([slow_at_first], [[0], [1]], 2, lambda chunk: None)
    assert seconds == [[1, 1], [1, 1]]


def test_a_machine_that_gets_slower_is_as_slow_for_every_decoder(monkeypatch):
    """Timed one after the other, the last of four would look half as fast."""
    clock = Clock(monkeypatch)
    decoders = [clock.decoder(name, lambda calls: 1 + calls / 100) for name in "abcd"]
    result = decode_in_turns(decoders, [[i] for i in range(8)], 3, lambda chunk: None)
    medians = [np.median(seconds, 1).sum() for _, seconds in result]
    assert max(medians) / min(medians) < 1.02


def test_no_decoder_is_always_the_first(monkeypatch):
    clock = Clock(monkeypatch)
    decoders = [clock.decoder(name, lambda _: 1) for name in "abc"]
    decode_in_turns(decoders, [[0], [1], [2]], 2, lambda chunk: None)
    firsts = [name for name, _ in clock.calls[::3]]
    assert {firsts.count(name) for name in "abc"} == {3}


def test_a_disturbed_chunk_does_not_count():
    """Another chunk is disturbed in every round: no whole round is undisturbed."""
    seconds = [[1.0, 1.0, 9.0], [9.0, 1.0, 1.0], [1.0, 9.0, 1.0]]
    row = Row("a", "fairseq", "cpu", 1, 1, 0, "", sentences=30, tokens=90, seconds=seconds)
    assert row.sentences_per_second == 10 and row.tokens_per_second == 30
    assert row.speed_range == (30 / 27, 10)
