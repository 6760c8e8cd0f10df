"""What fairseq-train logged of its validations, as curves."""

import json
import math
import re

# Both of fairseq's formats for files: "| valid on 'valid' subset | loss 4.5 | ..." and JSON.
_SIMPLE = re.compile(r"\| valid on '[^']*' subset \|(.*)")
_JSON = re.compile(r"\| valid[^|]*\| (\{.*\})")
MEASURES = ("bleu", "loss")


def read_curves(path):
    """{measure: [(updates, value), ...]} from what fairseq-train printed.

    Args:
        path: of its log, with ``--log-format simple`` or ``json``
    Raises:
        FileNotFoundError: there is none
        ValueError: it tells of no validation
    """
    curves = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for values in map(_values, lines):
            if "num_updates" not in values:  # of no validation, or cut off
                continue
            for measure in MEASURES:
                value = float(values.get(measure, "nan"))
                if math.isfinite(value):  # a training that has diverged says nan
                    curves.setdefault(measure, {})[int(values["num_updates"])] = value
    if not curves:
        raise ValueError(
            f"--logs: {path!r} tells of no validation. Expected what fairseq-train printed "
            "with --log-format simple or json."
        )
    return {measure: sorted(points.items()) for measure, points in curves.items()}


def _values(line):
    """{name: value} of one line, as strings; empty if it is not of a validation."""
    simple = _SIMPLE.search(line)
    if simple:
        pairs = (part.split() for part in simple[1].split("|"))
        return dict(pair for pair in pairs if len(pair) == 2)
    found = _JSON.search(line)
    try:
        values = json.loads(found[1]) if found else {}
    except json.JSONDecodeError:  # cut off
        values = {}
    return {name.partition("valid_")[2]: value for name, value in values.items()}
