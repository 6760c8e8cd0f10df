"""Measure sampling with fairseq and with CTranslate2, whose Translator is made anew each time.

    python examples/benchmarks/sampling.py DATA TEACHER [--samples N] [--topk K]

CTranslate2 seeds its generator when a thread starts: a chunk of a store would have the same
samples in every process if set_random_seed and a new Translator came before it. Chunks are as
those of a store, from the whole range of lengths; one thread; in turns; medians.
"""

import argparse
import os
import statistics
import tempfile
import time

import ctranslate2
import torch

from fairseq_seqkd.chunked.plan import chunk_size, plan_chunks
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.decoding.agreement import evenly_spread
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.models.ctranslate2 import convert_teacher
from fairseq_seqkd.teacher import load_teacher

TYPES = ("float32", "int8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="data-bin")
    parser.add_argument("teacher", help="checkpoint")
    parser.add_argument("--samples", type=int, default=1, help="of each sentence")
    parser.add_argument("--topk", type=int, default=-1, help="default: the whole vocabulary")
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = open_split(arguments.data, "train").dataset
    planned = plan_chunks(dataset.src_sizes, chunk_size(len(dataset)))
    numbers = evenly_spread(range(len(planned)), arguments.chunks + 2)[1:-1]
    chunks = [planned[number] for number in numbers] or planned[:1]
    with tempfile.TemporaryDirectory() as folder:
        report(*measure(arguments, dataset, chunks, folder), arguments)


def measure(arguments, dataset, chunks, folder):
    """{engine: seconds of every round}, and whether CTranslate2 drew the same twice."""
    teacher = load_teacher(arguments.teacher, arguments.data)
    number, topk = arguments.samples, arguments.topk
    search = SearchOptions(beam=number, nbest=number, sampling=True, sampling_topk=topk)
    engine = FairseqEngine(teacher, search)
    lengths, longest = dataset.src_sizes, teacher.max_source_positions()
    chunks = [ids[(lengths[ids] > 1) & (lengths[ids] <= longest)] for ids in chunks]
    samplers = {"fairseq": lambda ids, seed: list(engine(dataset, ids))}
    for compute_type in TYPES:
        converted = os.path.join(folder, compute_type)
        convert_teacher(teacher, converted, compute_type)
        samplers[f"CTranslate2 {compute_type}"] = sampler(
            os.path.join(converted, "model"), compute_type, dataset, teacher, search
        )
    same = all(
        sample(chunks[0], 1) == sample(chunks[0], 1)
        for name, sample in samplers.items()
        if name != "fairseq"
    )
    seconds = {name: [] for name in samplers}
    for seed in range(arguments.rounds):
        for name, sample in samplers.items():
            begin = time.perf_counter()
            for ids in chunks:
                sample(ids, seed)
            seconds[name].append(time.perf_counter() - begin)
    return seconds, same, sum(map(len, chunks))


def sampler(model, compute_type, dataset, teacher, search):
    """A function from sentence ids and a seed to CTranslate2's samples."""
    symbols = teacher.task.source_dictionary.symbols

    def sample(ids, seed):
        sources = [[symbols[token] for token in dataset.src[int(i)].tolist()[:-1]] for i in ids]
        ctranslate2.set_random_seed(seed)
        translator = ctranslate2.Translator(
            model, compute_type=compute_type, inter_threads=1, intra_threads=1
        )
        results = translator.translate_batch(
            sources,
            max_batch_size=512,
            batch_type="tokens",
            beam_size=1,
            num_hypotheses=search.beam,
            sampling_topk=max(0, search.sampling_topk),
            max_input_length=0,
            max_decoding_length=search.longest(0, teacher.max_target_positions()),
            return_scores=True,
        )
        return [(result.hypotheses, result.scores) for result in results]

    return sample


def report(seconds, same, sentences, arguments):
    """Print the medians as a table."""
    print("| engine | sentences/s | ratio |\n|---|--:|--:|")
    medians = {name: statistics.median(rounds) for name, rounds in seconds.items()}
    for name, median in medians.items():
        ratio = medians["fairseq"] / median
        print(f"| {name} | {sentences / median:,.0f} | {ratio:.2f} |")
    drawn = "the same" if same else "other"
    print(
        f"\n{sentences} sentences, {arguments.samples} samples of each, one thread, medians of "
        f"{arguments.rounds} rounds in turns. CTranslate2 drew {drawn} samples again."
    )


if __name__ == "__main__":
    main()
