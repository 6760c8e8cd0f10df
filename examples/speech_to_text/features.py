"""Make synthetic audio features of a text, as fairseq's task speech_to_text reads them.

    python features.py TEXT DATA [ROOT]    TEXT has {train,valid,test}.{src,tgt}

Every word of the source has a vector of its own. A word is spoken as a run of frames, some long
and some short: its vector plus noise. The transcript to learn is the target. Written are
features/SPLIT-NUMBER.npy, (frames, CHANNELS) each; the manifests SPLIT.tsv, which name them;
dict.txt of the targets' words; and config.yaml, which names the folder. Equal texts give
equal features.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

CHANNELS = 16
FRAMES = (2, 7)  # of a word: from 2 to 6
NOISE = 0.5  # standard deviation; that of a word's vector is 1
CONFIG = f"""\
input_channels: 1
input_feat_per_channel: {CHANNELS}
vocab_filename: dict.txt
"""


def speak(words, vectors, rng):
    """The (frames, CHANNELS) float32 features of a sentence.

    Args:
        words: list of words
        vectors: {word: its vector}; words that are not there are added
        rng: `numpy.random.Generator`
    """
    for word in words:
        if word not in vectors:
            vectors[word] = rng.standard_normal(CHANNELS)
    lengths = rng.integers(*FRAMES, size=len(words))
    clean = np.repeat([vectors[word] for word in words], lengths, axis=0)
    return (clean + NOISE * rng.standard_normal(clean.shape)).astype(np.float32)


def write_split(text, data, split, vectors, rng):
    """Write the features and the manifest of one split."""
    sides = [
        (text / f"{split}.{side}").read_text("utf-8").splitlines() for side in ("src", "tgt")
    ]
    with open(data / f"{split}.tsv", "w", encoding="utf-8") as file:
        manifest = csv.writer(file, delimiter="\t", lineterminator="\n")
        manifest.writerow(["id", "audio", "n_frames", "tgt_text", "speaker"])
        for number, (source, target) in enumerate(zip(*sides)):
            features = speak(source.split(), vectors, rng)
            path = f"features/{split}-{number}.npy"
            np.save(data / path, features)
            manifest.writerow([f"{split}-{number}", path, len(features), target, "one"])


def write_data(text, data, root=None, seed=1):
    """Write all splits of a folder of text, in fairseq's layout.

    Args:
        text: folder with {train,valid,test}.{src,tgt}
        data: created if it does not exist
        root: where this folder will be when it is read (default: where it is)
        seed: of vectors, lengths and noise
    """
    text, data = Path(text), Path(data)
    (data / "features").mkdir(parents=True, exist_ok=True)
    vectors, rng = {}, np.random.default_rng(seed)
    for split in ("train", "valid", "test"):
        write_split(text, data, split, vectors, rng)
    words = Counter((text / "train.tgt").read_text("utf-8").split())
    lines = "".join(f"{word} {count}\n" for word, count in words.most_common())
    (data / "dict.txt").write_text(lines, "utf-8")
    (data / "config.yaml").write_text(CONFIG + f"audio_root: {Path(root or data).resolve()}\n")


if __name__ == "__main__":
    write_data(*sys.argv[1:])
