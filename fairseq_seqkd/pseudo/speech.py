"""Pseudo-targets of speech: a text teacher's translations of the transcripts, in a manifest.

The store is that of the transcripts. Beside its data-bin stands a folder of the same name and
``-speech``, on which fairseq's task ``speech_to_text`` trains: the manifests and dictionaries
of the speech, with other target texts in one split.
"""

import csv
import os
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.io.files import atomic_directory, read_json, sha256, write_json
from fairseq_seqkd.pseudo.filters import apply_filters, measures_of
from fairseq_seqkd.pseudo.selected import select_hypotheses
from fairseq_seqkd.pseudo.source_text import MOST_UNKNOWN
from fairseq_seqkd.teacher import check_same_number

_COPIED = (".tsv", ".yaml", ".txt", ".model", ".vocab", ".npz", ".json")
# As fairseq reads manifests: nothing is quoted.
_DIALECT = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}


@dataclass
class Speech:
    """One split of a folder of speech.

    Attributes:
        folder: with the manifests
        name: the split's name
        dataset: its SpeechToTextDataset
    """

    folder: str
    name: str
    dataset: Any

    def check(self, split, spec):
        """Refuse transcripts of other utterances, and several targets of one.

        Args:
            split: the `PairSplit` of the transcripts
            spec: `TargetSpec`
        Raises:
            ValueError: names the flag, or see `check_same_number`
        """
        check_same_number(split.folder, split.name, len(split), len(self.dataset))
        if spec.keep > 1 or spec.selector.keeps_lists:
            raise ValueError(
                "--keep and --select sampled: a manifest of speech has one target for each "
                "utterance. Leave them out."
            )

    def build(self, store, split, spec):
        """Write the folder with the pseudo-targets, unless it exists.

        Args:
            store: `PseudoTargetStore` with all its chunks
            split, spec: as for `check`
        Returns:
            lines that describe it
        Raises:
            ValueError: it exists with other targets, or the student does not know their words
        """
        path = store.path(f"{spec.folder}-speech")
        with store.sealed():
            if not os.path.exists(path):
                texts, dropped_mask = self._texts(store, split, spec)
                self._check_words(texts)
                self._write(path, texts, dropped_mask, spec)
        spec.check(path)
        numbers = read_json(os.path.join(path, "target_spec.json"))["sentences"]
        return [
            f"{path}: {numbers['teacher']} utterances with the teacher's target, "
            f"{numbers['gold']} with their own, {numbers['dropped']} dropped"
        ]

    def _texts(self, store, split, spec):
        """{id: text of the selected hypothesis}, and a mask of the utterances to leave out."""
        selected = select_hypotheses(
            store, split, spec.selector, measures=measures_of(spec.filters), text=spec.text
        )
        rejected_by = apply_filters(selected, spec.filters)
        detokenise = Detokeniser(split.dataset.tgt_dict, **spec.text)
        ids = np.flatnonzero(selected.translated_mask & (rejected_by < 0)).tolist()
        texts = {id_: _one_line(detokenise.text(selected.tokens(id_))) for id_ in ids}
        return texts, (rejected_by >= 0) & spec.drop

    def _check_words(self, texts):
        """Refuse texts that are not cut as the student's targets are."""
        dataset, n_symbols, n_unknown, example = self.dataset, 0, 0, ""
        dictionary = dataset.tgt_dict
        for text in texts.values():
            text = dataset.tokenize(dataset.pre_tokenizer, text)
            symbols = dataset.tokenize(dataset.bpe_tokenizer, text).split()
            unknown = [one for one in symbols if dictionary.index(one) == dictionary.unk()]
            n_symbols, n_unknown = n_symbols + len(symbols), n_unknown + len(unknown)
            example = example or "".join(unknown[:1])
        if n_unknown > MOST_UNKNOWN * n_symbols:
            raise ValueError(
                f"--pseudo-targets: {n_unknown} of the {n_symbols} symbols of the translations "
                f"are not in the dictionary of {self.folder!r}, such as {example!r}; expected "
                f"at most {100 * MOST_UNKNOWN:g} %. Turn the teacher's subwords into text: "
                "--spm-model FILE or --remove-bpe."
            )

    def _write(self, path, texts, dropped_mask, spec):
        manifest = f"{self.name}.tsv"
        with atomic_directory(path) as folder:
            for name in sorted(os.listdir(self.folder)):
                if name.endswith(_COPIED) and name != manifest:
                    shutil.copyfile(os.path.join(self.folder, name), os.path.join(folder, name))
            _write_manifest(
                os.path.join(self.folder, manifest),
                os.path.join(folder, manifest),
                texts,
                dropped_mask,
            )
            numbers = {"teacher": len(texts), "dropped": int(dropped_mask.sum())}
            numbers["gold"] = len(self.dataset) - sum(numbers.values())
            sums = {manifest: sha256(os.path.join(folder, manifest))}
            report = {**spec.settings, "sentences": numbers, "sha256": sums}
            write_json(os.path.join(folder, "target_spec.json"), report)


def _one_line(text):
    return " ".join(text.replace("\t", " ").replace("\r", " ").split("\n"))


def _write_manifest(old, new, texts, dropped_mask):
    """Copy a manifest with other target texts, without some of its rows."""
    with open(old, encoding="utf-8", newline="") as before:
        rows = csv.DictReader(before, **_DIALECT)
        with open(new, "w", encoding="utf-8", newline="") as after:
            table = csv.DictWriter(after, rows.fieldnames, lineterminator="\n", **_DIALECT)
            table.writeheader()
            for id_, row in enumerate(rows):
                if not dropped_mask[id_]:
                    table.writerow({**row, "tgt_text": texts.get(id_, row["tgt_text"])})
