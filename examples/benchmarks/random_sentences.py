"""Write pairs of random sentences, and the dictionary of their words.

python random_sentences.py FOLDER SYMBOLS SENTENCES    writes dict.txt and train.{a,b}
"""

import random
import sys
from pathlib import Path


def write(folder, n_symbols, n_sentences):
    """Write the files; the dictionary has ``n_symbols`` with the four that fairseq adds."""
    random.seed(1)
    words = [f"w{i}" for i in range(n_symbols - 4)]
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in words))
    for side in "ab":
        with open(folder / f"train.{side}", "w") as file:
            for _ in range(n_sentences):
                file.write(" ".join(random.choices(words, k=random.randint(5, 25))) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
