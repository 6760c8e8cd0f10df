"""Translates standard input, a sentence a line: pip install ctranslate2 sentencepiece

    python translate.py < sentences > translations

Every line gives one line, an empty one an empty one; only a newline ends a line. Whatever input
is there is translated at once: a person gets an answer to each line, a pipe gets its output in
batches, and memory does not grow with the input. What a model cannot take as a whole, or not to
its end, is named on standard error: longer sentences are translated in pieces.
"""

import json
import os
import sys

import ctranslate2

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCK = 1 << 16  # bytes of input that are translated together, at most
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "।", "؟")


def main(folder=HERE, descriptor=0, output=None):
    output = output or sys.stdout.buffer
    translator = ctranslate2.Translator(folder, device="auto")
    use_vmap = os.path.exists(os.path.join(folder, "vmap.txt"))
    subwords, limits = load_subwords(folder), load_limits(folder)
    number = 1
    for lines in blocks_of_lines(descriptor):
        for text in translations(translator, subwords, limits, lines, number, use_vmap):
            output.write(text.encode("utf-8", "replace") + b"\n")
        output.flush()
        number += len(lines)


def blocks_of_lines(descriptor):
    """Yield lists of the lines (bytes without their end) that a file descriptor has ready."""
    rest = bytearray()
    for block in iter(lambda: os.read(descriptor, BLOCK), b""):
        lines, newline, after = block.rpartition(b"\n")
        rest += lines if newline else block
        if newline:
            yield bytes(rest).split(b"\n")
            rest = bytearray(after)
    if rest:
        yield [bytes(rest)]


def translations(translator, subwords, limits, lines, number, use_vmap=False):
    """Yield the translation of every line.

    Args:
        translator: ctranslate2.Translator
        subwords: the pair of functions (text to tokens, tokens to text)
        limits: see `load_limits`
        lines: list of bytes
        number: of the first line, to name it
        use_vmap: whether only the symbols are allowed that vmap.txt has for a batch's sources
    """
    encode, decode = subwords
    numbers = range(number, number + len(lines))
    sentences = [encode(text_of(line, n)) for n, line in zip(numbers, lines)]
    pieces = [cut(tokens, limits["source"], n) for n, tokens in zip(numbers, sentences)]
    results = iter(
        translator.translate_batch(
            [tokens for parts in pieces for tokens in parts],
            beam_size=1,
            max_batch_size=1024,
            batch_type="tokens",
            max_input_length=0,  # never cut
            max_decoding_length=limits["target"],
            return_end_token=True,
            use_vmap=use_vmap,
        )
    )
    for n, parts in zip(numbers, pieces):
        texts = [decode(finished(next(results).hypotheses[0], limits, n)) for _ in parts]
        yield " ".join(" ".join(texts).splitlines())  # bytes of a piece may be a newline


def text_of(line, number):
    """The text of a line, without a byte-order mark and spaces around it."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        warn(number, f"not UTF-8 ({error.reason}), translated without those bytes")
        text = line.decode("utf-8", "ignore")
    return text.lstrip("\ufeff").strip()


def cut(tokens, longest, number):
    """Cut what is too long after its sentences, else between words, else where it must be.

    Args:
        tokens: of a line
        longest: how many the model takes
        number: of the line
    Returns:
        a list of lists of tokens; none for an empty line
    """
    pieces, rest = [], tokens
    while len(rest) > longest:
        places = range(1, longest + 1)
        ends = [i for i in places if rest[i - 1].endswith(SENTENCE_ENDS)]
        words = [i for i in places if rest[i].startswith("▁")]
        end = (ends or words or [longest])[-1]
        pieces.append(rest[:end])
        rest = rest[end:]
    if pieces:
        found = f"{len(tokens)} tokens, more than the model's {longest}"
        warn(number, f"{found}: translated in {len(pieces) + 1} pieces")
    return pieces + [rest] * bool(rest)


def finished(tokens, limits, number):
    """The tokens before the end of the sentence; warns if there is none."""
    if tokens[-1:] == [limits["end"]]:
        return tokens[:-1]
    warn(number, f"its translation has no end after {len(tokens)} tokens: cut there")
    return tokens


def warn(number, message):
    print(f"translate.py: line {number}: {message}", file=sys.stderr)


def load_subwords(folder):
    """The functions from text to tokens and back; without a subword model, tokens are text."""
    path = os.path.join(folder, "subwords.model")
    if not os.path.exists(path):
        return str.split, " ".join
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=path)
    return lambda text: processor.encode(text, out_type=str), processor.decode


def load_limits(folder):
    """{"source", "target": most tokens, "end": the last token of a finished translation}."""
    with open(os.path.join(folder, "export.json"), encoding="utf-8") as file:
        return json.load(file)["limits"]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as when the output goes to ``head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
