"""Copies a sentencepiece model without the paths of its training.

The file is a protocol buffer, sentencepiece's ``ModelProto``. Its ``trainer_spec`` keeps the
names of the training text and of the model file.
"""

from fairseq_seqkd.io.files import atomic_file

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# {number of a message in ModelProto: numbers of its fields that name files}:
# trainer_spec: input, model_prefix, seed_sentencepieces_file
# normalizer_spec, denormalizer_spec: normalization_rule_tsv
_FILES = {2: (1, 2, 54), 3: (6,), 5: (6,)}


def copy_subword_model(path, copy):
    """Copy a sentencepiece model; the copy cuts and joins text alike, and names no file.

    Raises:
        ValueError: it is no sentencepiece model
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        cleaned = b"".join(_without_files(*field) for field in _fields(content))
    except (IndexError, ValueError) as error:
        raise ValueError(
            f"--spm-model: {path!r} is damaged, or no sentencepiece model. Expected the file "
            "NAME.model that spm_train wrote."
        ) from error
    with atomic_file(copy) as file:
        file.write(cleaned)


def _without_files(number, header, payload):
    """The bytes of a field of ModelProto without its fields that name files."""
    if number not in _FILES:
        return header + payload
    kept = [h + p for inner, h, p in _fields(payload) if inner not in _FILES[number]]
    content = b"".join(kept)
    return _varint((number << 3) | _BYTES) + _varint(len(content)) + content


def _fields(message):
    """Yield (number, header, payload) of a message's fields; the header has the length."""
    position = 0
    while position < len(message):
        key, start = _read_varint(message, position)
        kind = key & 7
        if kind == _BYTES:
            length, start = _read_varint(message, start)
        elif kind == _VARINT:
            length = _read_varint(message, start)[1] - start
        else:
            length = {_FIXED64: 8, _FIXED32: 4}.get(kind, len(message))
        if start + length > len(message):
            raise ValueError("the message is cut short")
        yield key >> 3, message[position:start], message[start : start + length]
        position = start + length


def _read_varint(message, position):
    """A number of seven bits a byte, the lowest first, and the position behind it."""
    value, shift = 0, 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _varint(value):
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
