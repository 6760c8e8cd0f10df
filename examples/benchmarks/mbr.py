"""Time minimum Bayes risk selection relative to decoding the n-best lists; see mbr.sh.

Decoding and selecting take turns on the same sentences, in one process with one thread. A plain
loop over sacreBLEU's sentence scores runs once, and must select the same hypotheses.
"""

import argparse
import copy
import dataclasses
import os
import shutil
import statistics
import sys
import time
from functools import partial

import numpy as np
from sacrebleu.metrics import CHRF
from tabulate import tabulate

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.io.files import atomic_file
from fairseq_seqkd.pseudo.generate import open_store, translate
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.selected import select_hypotheses
from fairseq_seqkd.pseudo.selectors import Best, build_selector, scores_at
from fairseq_seqkd.pseudo.store import read_nbest
from fairseq_seqkd.pseudo.target_spec import TargetSpec
from fairseq_seqkd.teacher import load_teacher


def first_sentences(split, number):
    """A split that ends after its first sentences."""
    dataset = copy.copy(split.dataset)
    for side in ("src", "tgt"):
        setattr(dataset, side, [getattr(dataset, side)[i] for i in range(number)])
        sizes = np.asarray(getattr(dataset, f"{side}_sizes"))[:number]
        setattr(dataset, f"{side}_sizes", sizes)
    return dataclasses.replace(split, dataset=dataset)


def recipe_of(arguments, task, nbest):
    """The `Recipe` of lists of ``nbest`` hypotheses, decoded by CTranslate2 in float32."""
    path, data = arguments.teacher_path, arguments.teacher_data
    return Recipe(
        teacher_path=path,
        load_teacher=lambda device, dtype: load_teacher(path, data, device, dtype, task),
        search={"beam": nbest, "nbest": nbest},
        engine={"name": "ctranslate2", "compute_type": "float32"},
        threads=1,
        check=False,
    )


def plain_loop(selector, store):
    """{id: index} of the hypothesis that a loop over sacreBLEU's sentence chrF selects."""
    metric, selected = CHRF(), {}
    for path in store.chunks.find().values():
        for sentence in read_nbest(path):
            if sentence.hypotheses:
                selected[sentence.id] = plain_index(metric, selector, sentence.hypotheses)
    return selected


def plain_index(metric, selector, hypotheses):
    """The index of the hypothesis with the highest mean over all others."""
    texts = [selector.detokenise.text(tokens) for tokens, _ in hypotheses]
    weights = np.ones(len(texts))
    if selector.has_weights:
        weights = np.exp(scores_at(0, hypotheses, selector.lenpen))
    means = []
    for i, text in enumerate(texts):
        others = [j for j in range(len(texts)) if j != i]
        utilities = [metric.sentence_score(text, [texts[j]]).score for j in others]
        means.append(np.dot(utilities, weights[others]) / max(sum(weights[others]), 1e-300))
    return int(np.argmax(np.round(means, 9)))


def different(selector, store, plain):
    """The number of sentences for which the selector and the plain loop do not agree."""
    sentences = [s for path in store.chunks.find().values() for s in read_nbest(path)]
    return sum(
        selector(sentence.hypotheses, None) != plain[sentence.id]
        for sentence in sentences
        if sentence.hypotheses
    )


def timed(seconds, name, function, *arguments):
    """Call a function and note how long it took."""
    begin = time.perf_counter()
    result = function(*arguments)
    seconds.setdefault(name, []).append(time.perf_counter() - begin)
    return result


def rows_of(arguments, split, nbest):
    """Rows of the table for lists of ``nbest`` hypotheses."""
    build = partial(
        *(build_selector, "mbr", split.dataset.tgt_dict), remove_bpe=arguments.remove_bpe
    )
    selectors = {"mbr": build(), "mbr, weighted": build(mbr_weights=True)}
    recipe, seconds, unequal = recipe_of(arguments, split.task, nbest), {}, {}
    root = os.path.join(arguments.work, f"mbr-{nbest}")
    for number in range(arguments.rounds):
        shutil.rmtree(root, ignore_errors=True)
        store = open_store(root, split, TargetSpec(Best()), recipe)
        timed(seconds, "decoding", translate, store, split, recipe, Worker())
        timed(seconds, "best", select_hypotheses, store, split, Best())
        for name, selector in selectors.items():
            timed(seconds, name, select_hypotheses, store, split, selector)
            if number == 0:  # a store's lists are the same in every round
                plain = timed(seconds, f"plain {name}", plain_loop, selector, store)
                unequal[name] = different(selector, store, plain)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    yield [nbest, "decoding, CTranslate2 float32", medians["decoding"], 1, "", ""]
    for name in ("best", *selectors):
        plain = medians.get(f"plain {name}", "")
        relative = medians[name] / medians["decoding"]
        yield [
            nbest,
            f"selecting {name}",
            medians[name],
            relative,
            plain,
            unequal.get(name, ""),
        ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data-bin, whose training split is translated")
    parser.add_argument("--teacher-path", required=True, help="the teacher's checkpoint")
    parser.add_argument("--teacher-data", required=True, help="folder with its dictionaries")
    parser.add_argument("--work", required=True, help="folder for the stores")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--nbest", type=int, nargs="+", default=[5, 32])
    parser.add_argument("--remove-bpe", default="sentencepiece")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", required=True, help="file for the table")
    arguments = parser.parse_args()

    split = first_sentences(open_split(arguments.data, "train"), arguments.sentences)
    heads = ["n-best", "step", "seconds", "time / decoding", "plain loop, seconds", "different"]
    rows = [row for nbest in arguments.nbest for row in rows_of(arguments, split, nbest)]
    table = tabulate(rows, heads, tablefmt="github", floatfmt=("", "", ".2f", ".3f", ".1f", ""))
    text = (
        f"{table}\n\n{len(split)} sentences, medians of {arguments.rounds} rounds on one "
        "thread. Different: sentences for which the plain loop selects another hypothesis.\n"
    )
    print(text)
    with atomic_file(arguments.out) as file:
        file.write(text.encode())
    if any(row[-1] for row in rows):
        sys.exit("the plain loop selects other hypotheses")


if __name__ == "__main__":
    main()
