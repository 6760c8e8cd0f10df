"""fairseq's batches: targets collated, targets replaced, some rows of the inputs."""

import torch
from fairseq.data import data_utils


def collate_targets(targets, dictionary, left_pad=False):
    """Pad targets to one length, and shift them to the decoder's inputs.

    Args:
        targets: list of (length,) token ids
        dictionary: of the targets
        left_pad: whether padding stands in front
    Returns:
        {"target", "prev_output_tokens"}, both (batch, longest); the second begins with EOS in
        the place of the last token
    """
    return {
        name: data_utils.collate_tokens(
            targets, dictionary.pad(), dictionary.eos(), left_pad, move_eos_to_beginning=shifted
        )
        for name, shifted in (("target", False), ("prev_output_tokens", True))
    }


def targets_of(sample):
    """{"target", "prev_output_tokens"} of a batch."""
    inputs = sample["net_input"]
    return {
        "target": sample["target"],
        "prev_output_tokens": inputs["prev_output_tokens"],
    }


def replace_targets(sample, rows, targets, dictionary):
    """A batch with other targets in some rows; the old targets of all rows are its ``gold``.

    Args:
        sample: a batch as fairseq collates it, which stays as it is; a ``gold`` that it has
            is kept
        rows: (n,) the rows that get new targets; the others keep theirs
        targets: list of n (length,) token ids
        dictionary: of the targets
    Returns:
        another dictionary
    """
    pad, old = dictionary.pad(), targets_of(sample)
    new = collate_targets(targets, dictionary)
    merged = {name: _merge(old[name], rows, new[name], pad) for name in old}
    # Drop columns in which no row has a target any more.
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


def input_rows(net_input, rows, batch):
    """The encoder's inputs of some rows.

    Args:
        net_input: the arguments of the model's forward, as fairseq collates them
        rows: (n,) indices
        batch: how many rows there are
    Returns:
        every tensor with an entry a row cut to these rows, without ``prev_output_tokens``
    """
    return {
        key: value[rows] if torch.is_tensor(value) and len(value) == batch else value
        for key, value in net_input.items()
        if key != "prev_output_tokens"
    }
