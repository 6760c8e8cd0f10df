"""Validation curves, read from the logs of fairseq-train."""

import json
import math
import os
import re

from fairseq_seqkd.io.text import text_lines

# Both of fairseq's formats for files: "| valid on 'valid' subset | loss 4.5 | ..." and JSON.
_SIMPLE = re.compile(r"\| valid on '[^']*' subset \|(.*)")
_JSON = re.compile(r"\| valid[^|]*\| (\{.*\})")
METRICS = ("bleu", "loss")


def read_joined_curves(logs):
    """Read {metric: [(updates, value), ...]} from the logs of a training in several steps.

    The updates of a step are counted from the end of the step before it.

    Args:
        logs: paths, separated by commas. ``LOG@UPDATE`` is a log up to that update: the next
            step began with an earlier checkpoint than the last.
    Raises:
        FileNotFoundError, ValueError: as for `read_curves`
    """
    joined, begin = {}, 0
    for log in [logs] if os.path.exists(logs) else logs.split(","):
        path, end = _split_update(log)
        curves = read_curves(path)
        updates = [update for points in curves.values() for update, _ in points]
        end = max(updates) if end is None else end
        if end < min(updates):
            raise ValueError(f"--logs: {path!r} reports no validation up to update {end}")
        for metric, points in curves.items():
            points = [(begin + update, value) for update, value in points if update <= end]
            joined.setdefault(metric, []).extend(points)
        begin += end
    return joined


def _split_update(log):
    """``(path, update)`` of ``path@update``; the update is None if there is none."""
    path, at, update = log.rpartition("@")
    is_plain = not at or not update.isdigit() or os.path.exists(log)
    return (log, None) if is_plain else (path, int(update))


def read_curves(path):
    """Read {metric: [(updates, value), ...]} from a training's log.

    A log of a resumed training may report an update twice: the last value counts.

    Args:
        path: of a log of fairseq-train with ``--log-format simple`` or ``json``
    Raises:
        FileNotFoundError: there is no such file
        ValueError: it reports no validation
    """
    curves = {}
    for _, line, _ in text_lines(path, errors="replace"):
        # A carriage return ends each state of a progress bar.
        for values in map(_validation_values, line.split("\r")):
            if "num_updates" not in values:  # not a validation, or cut off
                continue
            for metric in METRICS:
                value = float(values.get(metric, "nan"))
                if math.isfinite(value):  # a training that diverged logs nan
                    curves.setdefault(metric, {})[int(values["num_updates"])] = value
    if not curves:
        raise ValueError(
            f"--logs: {path!r} reports no validation. Expected the output of fairseq-train "
            "with --log-format simple or json."
        )
    return {metric: sorted(points.items()) for metric, points in curves.items()}


def _validation_values(line):
    """{name: value} of a line that reports a validation, as strings; else empty."""
    simple = _SIMPLE.search(line)
    if simple:
        pairs = (part.split() for part in simple[1].split("|"))
        return dict(pair for pair in pairs if len(pair) == 2)
    match = _JSON.search(line)
    try:
        values = json.loads(match[1]) if match else {}
    except json.JSONDecodeError:  # cut off
        values = {}
    return {name.partition("valid_")[2]: value for name, value in values.items()}
