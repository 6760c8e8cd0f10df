"""Compares and saves fairseq's dictionaries.

With ``#fairseq:overwrite`` a symbol has several indices. The last one is that which text gets;
the special symbols keep the first for themselves.
"""

import itertools


def save_dictionary(dictionary, path):
    """Write a dictionary so that fairseq loads the same one, repeated symbols included."""
    seen = set(dictionary.symbols[: dictionary.nspecial])
    with open(path, "w", encoding="utf-8") as file:
        for symbol, count in _entries(dictionary):
            flag = " #fairseq:overwrite" if symbol in seen else ""
            file.write(f"{symbol} {count}{flag}\n")
            seen.add(symbol)


def _entries(dictionary):
    """The symbols that are not special, and their counts."""
    n = dictionary.nspecial
    return zip(dictionary.symbols[n:], dictionary.count[n:])


def save_unique(dictionary, path):
    """Write a dictionary of the `unique_symbols`, as many."""
    names = unique_symbols(dictionary)[dictionary.nspecial :]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{name} 1\n" for name in names)


def unique_symbols(dictionary):
    """Another name for every index whose symbol has a second one.

    Returns:
        (symbols,) names that differ; those of the special symbols, and of symbols with one
        index, are as they are
    """
    names, taken = list(dictionary.symbols), set(dictionary.symbols)
    special = dictionary.symbols[: dictionary.nspecial]
    for index, symbol in enumerate(dictionary.symbols):
        kept = special.index(symbol) if symbol in special else dictionary.indices[symbol]
        if index != kept:
            name = f"{symbol}#{index}"
            while name in taken:
                name += "#"
            names[index] = name
            taken.add(name)
    return names


def first_difference(one, other):
    """The first index at which two lists of symbols differ.

    Returns:
        (index, the first's symbol, the other's), the symbols in quotes or "nothing"; None if
        both are the same
    """
    pairs = itertools.zip_longest(one, other)
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if index is None:
        return None
    return (index, *(repr(s[index]) if index < len(s) else "nothing" for s in (one, other)))


def check_same_symbols(side, teacher_dict, student_dict, added):
    """Refuse a student's dictionary whose symbols are not the teacher's.

    Args:
        side: ``source`` or ``target``
        added: symbols that the teacher may have behind the student's
    Raises:
        ValueError: names the first index that differs and both symbols
    """
    size = len(student_dict)
    difference = first_difference(teacher_dict.symbols, student_dict.symbols)
    if difference is None or (
        difference[0] == size and set(teacher_dict.symbols[size:]) <= added
    ):
        return
    index, ours, theirs = difference
    raise ValueError(
        f"the teacher's {side} dictionary ({len(teacher_dict)} symbols) is not the "
        f"student's ({size} symbols): at index {index} the teacher has {ours}, the student "
        f"{theirs}. Distributions over different symbols cannot be compared. Binarise the "
        "student's data with the teacher's dictionary (fairseq-preprocess "
        "--srcdict/--tgtdict), or distil on text: let fairseq-generate translate the training "
        "set with the teacher, and train on that output as seq_kd does. If this is not the "
        "teacher's own dictionary, name the folder that holds it with --teacher-data."
    )
