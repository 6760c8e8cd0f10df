"""How sparse a model is, by the classes of its parameters."""

from collections import defaultdict

from tabulate import tabulate

from fairseq_seqkd.models.parameters import class_of, fraction_of_zeros, nonzero

HEADERS = ["", "parameters", "not zero", "% zero"]


def table(parameters, teacher=None):
    """The table that says how sparse a model is, as text.

    Args:
        parameters: {name: tensor}, each once
        teacher: how many of the teacher's are not zero, counted in the same way, if known
    """
    classes = defaultdict(dict)
    for name, tensor in parameters.items():
        classes[class_of(name)][name] = tensor
    rows = [_row(name, members) for name, members in classes.items()]
    rows.append(_row("all", parameters))
    align = ["left", "right", "right", "right"]
    text = tabulate(rows, HEADERS, "github", colalign=align, disable_numparse=True)
    if teacher is not None:
        times = teacher / max(nonzero(parameters), 1)
        text += f"\n{times:.1f} times fewer than the teacher's {teacher:,}"
    return text


def _row(name, members):
    size = sum(tensor.numel() for tensor in members.values())
    zero = 100 * fraction_of_zeros(members)
    return [name, f"{size:,}", f"{nonzero(members):,}", f"{zero:.1f}"]
