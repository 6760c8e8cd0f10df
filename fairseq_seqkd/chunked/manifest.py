"""Compares a manifest on disk with the expected one."""


def differences(found, expected, prefix="", exactly=False):
    """List the entries of a manifest that differ from what is expected.

    Args:
        found: the manifest on disk, nested dictionaries
        expected: nested dictionaries; an entry of None accepts anything
        prefix: put before every entry's name
        exactly: an entry of None accepts only None, and entries that ``expected`` lacks
            count as None
    Returns:
        a list of strings "entry: found ..., expected ..."
    """
    lines = []
    for key, wanted in expected.items():
        name, value = f"{prefix}{key}", found.get(key)
        if isinstance(wanted, dict):
            more = dict.fromkeys(value or {}) if exactly else {}
            lines += differences(value or {}, {**more, **wanted}, f"{name}.", exactly)
        elif (exactly or wanted is not None) and value != wanted:
            lines.append(f"{name}: found {value}, expected {wanted}")
    return lines
