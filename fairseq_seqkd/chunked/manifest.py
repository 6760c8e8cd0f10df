"""What a store was made from and how, compared with what is asked for."""


def differences(found, expected, prefix="", exactly=False):
    """The entries of ``expected`` that ``found`` has otherwise.

    Args:
        found: the manifest on disk, nested dictionaries
        expected: what it should say; an entry of None asks for nothing
        exactly: an entry of None asks for None, and a dictionary for nothing more than it has
    Returns:
        a list of strings "entry: found ..., expected ..."
    """
    lines = []
    for key, wanted in expected.items():
        name = f"{prefix}{key}"
        have = found.get(key)
        if isinstance(wanted, dict):
            more = dict.fromkeys(have or {}) if exactly else {}
            lines += differences(have or {}, {**more, **wanted}, f"{name}.", exactly)
        elif (exactly or wanted is not None) and have != wanted:
            lines.append(f"{name}: found {have}, expected {wanted}")
    return lines
