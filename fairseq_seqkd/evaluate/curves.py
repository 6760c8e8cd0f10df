"""Validation curves, read from the logs of fairseq-train."""

import json
import math
import re

# Both of fairseq's formats for files: "| valid on 'valid' subset | loss 4.5 | ..." and JSON.
_SIMPLE = re.compile(r"\| valid on '[^']*' subset \|(.*)")
_JSON = re.compile(r"\| valid[^|]*\| (\{.*\})")
METRICS = ("bleu", "loss")


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
    with open(path, encoding="utf-8", errors="replace") as lines:
        for values in map(_validation_values, lines):
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
