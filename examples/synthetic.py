"""Generate a synthetic parallel corpus with several valid translations per sentence.

    python synthetic.py FOLDER      writes {train,valid,test}.{src,tgt}

The source puts the verb last; the target puts it second. The voice (active or passive, which
moves every phrase), the position of the adverb, and one of the synonyms of every second word
are drawn at random, so that a sentence's translations have several modes. Everything follows
from one seed.
"""

import random
import sys
from pathlib import Path

SEED = 1
SIZES = {"train": 4000, "valid": 200, "test": 400}
LEXICON = {"noun": 120, "verb": 60, "adjective": 60, "adverb": 20}
# Half of the words: small models learn them in some hundred updates.
SMALL_LEXICON = {"noun": 60, "verb": 30, "adjective": 30, "adverb": 10}
ONSETS = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "br"]
VOWELS = ["a", "e", "i", "o", "u"]


class Language:
    """The lexicon of the language pair and the grammar of both sides."""

    def __init__(self, rng, lexicon):
        self.rng = rng
        self.taken = {"was", "by", "the"}
        self.words = {
            kind: [self.new_word() for _ in range(count)] for kind, count in lexicon.items()
        }
        # Every second word has a synonym.
        self.synonyms = {
            word: [self.new_word() for _ in range(1 + i % 2)]
            for words in self.words.values()
            for i, word in enumerate(words)
        }

    def new_word(self):
        while True:
            syllables = self.rng.choice([2, 2, 3])
            word = "".join(
                self.rng.choice(ONSETS) + self.rng.choice(VOWELS) for _ in range(syllables)
            )
            if word not in self.taken:
                self.taken.add(word)
                return word

    def draw_word(self, kind):
        return self.rng.choice(self.words[kind])

    def phrase(self):
        adjectives = [self.draw_word("adjective") for _ in range(self.rng.choice([0, 1, 1, 2]))]
        return [*adjectives, self.draw_word("noun")]

    def translate(self, words):
        """Draw a valid translation of each word; a first synonym is more frequent."""
        return [
            self.rng.choices(self.synonyms[w], weights=[6, 4][: len(self.synonyms[w])])[0]
            for w in words
        ]

    def pair(self):
        """Draw a source sentence and one of its translations, as lists of words."""
        subject, object_ = self.phrase(), self.phrase()
        verb, adverb = [self.draw_word("verb")], [self.draw_word("adverb")]
        source = [*subject, *adverb, *object_, *verb]

        subject, object_, verb, adverb = map(self.translate, (subject, object_, verb, adverb))
        if self.rng.random() < 0.6:
            clause = ["the", *subject, *verb, "the", *object_]
        else:
            clause = ["the", *object_, "was", *verb, "by", "the", *subject]
        target = [*clause, *adverb] if self.rng.random() < 0.6 else [*adverb, *clause]
        return source, target


def write_corpus(folder, sizes=None, seed=SEED, lexicon=None):
    """Write every split of the corpus.

    Args:
        folder: created if it does not exist
        sizes: {split: number of sentence pairs}
        seed: of all random draws; equal seeds give equal files
        lexicon: {kind: number of words}
    """
    language = Language(random.Random(seed), lexicon or LEXICON)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in (sizes or SIZES).items():
        pairs = [language.pair() for _ in range(size)]
        for side, suffix in enumerate(("src", "tgt")):
            lines = "".join(" ".join(pair[side]) + "\n" for pair in pairs)
            (folder / f"{split}.{suffix}").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    write_corpus(sys.argv[1], lexicon=SMALL_LEXICON)
