"""Every row's output as files of plain text, line for line with sources and references."""

import re

FOLDER = "outputs"
_LONGEST_NAME = 50  # characters of a model's name in a file's name


def name_outputs(rows, splits):
    """Fill in the names of the output files of all rows.

    Args:
        rows: `Row` list
        splits: names of the splits
    """
    devices, taken = {row.device for row in rows}, set()
    for row in rows:
        way = [row.decoding.replace(" ", ""), row.engine.replace(":", "-")]
        way += [row.device] * (len(devices) > 1)
        for number, seed in enumerate(row.seeds, 1):
            which = [f"seed{number}"] * (len(row.seeds) > 1)
            stem = ".".join([_safe(row.model)[:_LONGEST_NAME], *which, *way])
            stem = _unused(stem, taken)
            seed.outputs = {split: f"{FOLDER}/{split}/{stem}.txt" for split in splits}


def _safe(name):
    """A model's name as a part of a file's name, on any system."""
    return re.sub(r"[^\w+-]+", "_", name)


def _unused(stem, taken):
    """The stem, with a number if another file has it; case does not tell files apart."""
    candidates = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 2))]
    unused = next(one for one in candidates if one.lower() not in taken)
    taken.add(unused.lower())
    return unused


def text_files(corpus, runs):
    """The content of all files, with the sources and the references.

    Args:
        corpus: `Corpus`
        runs: `Run` list, whose outputs have names
    Returns:
        {path in the report's folder: content}
    """
    files = {}
    for split, part in corpus.parts.items():
        files[f"{FOLDER}/{split}/source.txt"] = as_lines(corpus.sources[part])
        files[f"{FOLDER}/{split}/reference.txt"] = as_lines(corpus.references[part])
        for run in runs:
            for seed, output in zip(run.row.seeds, run.seeds):
                files[seed.outputs[split]] = as_lines(output.texts[part])
    return files


def as_lines(texts):
    """The texts as lines; what some programs take for the end of a line becomes a space."""
    return "".join(" ".join(text.splitlines()) + "\n" for text in texts)
