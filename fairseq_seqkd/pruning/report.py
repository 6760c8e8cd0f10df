"""A table of a model's sparsity, by class of parameters."""

from collections import defaultdict

from tabulate import tabulate

from fairseq_seqkd.models.parameters import class_of, count_nonzero, fraction_of_zeros

HEADERS = ["", "parameters", "non-zero", "% zero"]


def sparsity_table(parameters, teacher_nonzero=None):
    """A Markdown table of sparsity, and the ratio to the teacher's non-zero parameters.

    Args:
        parameters: {name: tensor}, each shared one once
        teacher_nonzero: the teacher's non-zero parameters, if known
    """
    classes = defaultdict(dict)
    for name, tensor in parameters.items():
        classes[class_of(name)][name] = tensor
    rows = [_row(name, members) for name, members in classes.items()]
    rows.append(_row("all", parameters))
    align = ["left", "right", "right", "right"]
    table = tabulate(rows, HEADERS, "github", colalign=align, disable_numparse=True)
    if teacher_nonzero is None:
        return table
    ratio = teacher_nonzero / max(count_nonzero(parameters), 1)
    return f"{table}\n{ratio:.1f} times fewer than the teacher's {teacher_nonzero:,}"


def _row(name, members):
    size = sum(tensor.numel() for tensor in members.values())
    zero = 100 * fraction_of_zeros(members)
    return [name, f"{size:,}", f"{count_nonzero(members):,}", f"{zero:.1f}"]
