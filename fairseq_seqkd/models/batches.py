"""Operations on fairseq's batches: collate targets, replace targets."""

from fairseq.data import data_utils


def collate_targets(targets, dictionary, left_pad=False):
    """Pad targets to one length, and shift them to make the decoder's inputs.

    Args:
        targets: list of (length,) token ids, with EOS
        dictionary: the target dictionary
        left_pad: whether padding comes first
    Returns:
        {"target", "prev_output_tokens"}, both (batch, longest); in the second EOS is moved
        to the front
    """
    return {
        name: data_utils.collate_tokens(
            targets, dictionary.pad(), dictionary.eos(), left_pad, move_eos_to_beginning=shifted
        )
        for name, shifted in (("target", False), ("prev_output_tokens", True))
    }


def targets_of(sample):
    """{"target", "prev_output_tokens"} of a batch, both (batch, length)."""
    prev_output_tokens = sample["net_input"]["prev_output_tokens"]
    return {"target": sample["target"], "prev_output_tokens": prev_output_tokens}


def rows_without_target(sample, pad):
    """The number of rows of a batch whose ``target`` is padding alone, as a tensor."""
    return sample["target"].eq(pad).all(-1).sum()


def replace_targets(sample, rows, targets, dictionary):
    """Replace the targets of some rows; the old targets of all rows become ``gold``.

    The decoder's context begins with the symbol that it began with before.

    Args:
        sample: a batch as fairseq collates it; it is not changed. Its ``gold``, if it has
            one, is kept
        rows: (n,) indices of the rows with new targets
        targets: list of n (length,) token ids, with EOS
        dictionary: the target dictionary
    Returns:
        the new batch
    """
    pad, old = dictionary.pad(), targets_of(sample)
    new = collate_targets(targets, dictionary)
    first = old["prev_output_tokens"][rows, 0]
    new["prev_output_tokens"][first.ne(pad), 0] = first[first.ne(pad)]
    merged = {name: _merge(old[name], rows, new[name], pad) for name in old}
    # Drop columns that are padding in all rows.
    used = merged["target"].ne(pad).any(0)
    return {
        "gold": old,
        **sample,
        "target": merged["target"][:, used],
        "net_input": {
            **sample["net_input"],
            "prev_output_tokens": merged["prev_output_tokens"][:, used],
        },
        "ntokens": int(merged["target"].ne(pad).sum()),
    }


def _merge(old, rows, new, pad):
    width = max(old.size(1), new.size(1))
    merged = old.new_full((len(old), width), pad)
    merged[:, : old.size(1)] = old
    merged[rows] = pad
    merged[rows, : new.size(1)] = new.to(old)
    return merged
