"""Translates a split with every model and measures what came out and how long it took."""

import os
import statistics
import time
from dataclasses import dataclass, field
from typing import List

import torch
from sacrebleu.metrics import BLEU
from tqdm import tqdm

from fairseq_seqkd.pseudo.backends.fairseq import FairseqBackend
from fairseq_seqkd.pseudo.corpus import Split
from fairseq_seqkd.search import SearchOptions
from fairseq_seqkd.shards import plan_chunks
from fairseq_seqkd.teacher import load_teacher


@dataclass
class Row:
    """One model decoding in one way.

    Attributes:
        name, beam: which model, and its beam size
        parameters, nonzero: all, and those that are not zero, each counted once
        bleu: corpus BLEU, 0 to 100, on every line of the split
        signature: sacreBLEU's, which says how to get the same number
        sentences: how many lines were translated and counted
        seconds: what each round took, loading excluded
        threads: of the processor, while it was measured
    """

    name: str
    beam: int
    parameters: int
    nonzero: int
    bleu: float = 0.0
    signature: str = ""
    sentences: int = 0
    seconds: List[float] = field(default_factory=list)
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def sentences_per_second(self):
        return self.sentences / statistics.median(self.seconds)


def evaluate(checkpoints, data, split, beams, remove_bpe, reference_file, rounds):
    """Compare models on one split.

    Args:
        checkpoints: {name: checkpoint path}, the first is what others are compared with
        data: data-bin whose dictionaries all of them were trained with
        split: such as ``test``
        beams: beam sizes; 1 is greedy decoding
        remove_bpe: how subwords are joined, as in fairseq's --remove-bpe
        reference_file: one reference a line; None takes the split's gold target
        rounds: how often each translates the split, all taking turns
    Returns:
        a :class:`Row` for every model and beam
    Raises:
        ValueError: the references are not as many as the split's lines
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {name: load_teacher(path, data, device) for name, path in checkpoints.items()}
    gold = _load_gold(next(iter(models.values())).task, data, split)
    references = _references(gold, remove_bpe, reference_file)
    rows = [
        Row(name, beam, model.parameters, model.nonzero)
        for name, model in models.items()
        for beam in beams
    ]
    for row in tqdm(rows * rounds, unit=" runs", desc=f"translating {split}"):
        model = models[row.name]
        begin = time.perf_counter()
        texts = translate(model, gold.dataset, row.beam, remove_bpe)
        row.seconds.append(time.perf_counter() - begin)
        _score(row, texts, references)
    return rows


def translate(model, dataset, beam, remove_bpe):
    """The text of every sentence's best hypothesis, in the order of the split.

    Raises:
        ValueError: a sentence has none, so that a number would leave it out
    """
    backend = FairseqBackend(model, SearchOptions(beam=beam), unfinished=True)
    by_length = plan_chunks(dataset.src_sizes, max(len(dataset), 1))[0]
    texts = [None] * len(dataset)
    for id_, hypotheses in backend(dataset, by_length):
        if hypotheses:
            tokens = hypotheses[0][0].tolist()
            texts[id_] = model.task.target_dictionary.string(tokens, remove_bpe)
    if None in texts:
        raise ValueError(
            f"{texts.count(None)} of {len(texts)} sentences have no translation, the "
            f"first is line {texts.index(None) + 1}: a score over the rest would mislead"
        )
    return texts


def _load_gold(task, data, split):
    cfg = task.cfg
    return Split.load(
        data,
        split,
        cfg.source_lang,
        cfg.target_lang,
        task.source_dictionary,
        task.target_dictionary,
        cfg.left_pad_source,
    )


def _references(gold, remove_bpe, file_name):
    if file_name is None:
        dictionary = gold.dataset.tgt_dict
        return [
            dictionary.string(gold.dataset.tgt[i].tolist(), remove_bpe, escape_unk=True)
            for i in range(len(gold.dataset))
        ]
    with open(file_name, encoding="utf-8") as lines:
        references = [line.rstrip("\n") for line in lines]
    if len(references) != len(gold.dataset):
        raise ValueError(
            f"--ref: {os.fspath(file_name)!r} has {len(references)} lines, expected the "
            f"{len(gold.dataset)} of {gold.name!r} in {gold.folder!r}"
        )
    return references


def _score(row, texts, references):
    metric = BLEU()
    row.bleu = metric.corpus_score(texts, [references]).score
    row.signature = str(metric.get_signature())
    row.sentences = len(texts)
