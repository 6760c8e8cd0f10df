"""Time speculative decoding beside the teacher alone; see speculative.sh.

All ways of decoding take turns in one process with one thread, at the same chunks of sentences.
"""

import argparse
from dataclasses import dataclass, field
from statistics import median
from typing import Callable

import torch
from tabulate import tabulate

from fairseq_seqkd.databin import open_split
from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.decoding.speculative import DraftCounts, GreedyRule, SamplingRule
from fairseq_seqkd.evaluate.drafting import step_seconds
from fairseq_seqkd.evaluate.speed import decode_in_turns
from fairseq_seqkd.io.files import atomic_file
from fairseq_seqkd.io.progress import progress_bar
from fairseq_seqkd.teacher import load_teacher
from fairseq_seqkd.teacher.drafting import DraftedTeacher

ONE_LINE = 1  # source tokens of a batch: the longest sentence always goes


@dataclass
class Way:
    """A way to decode.

    Attributes:
        name: as the table shows it
        decode: called with a data set and ids, gives {id: list of tokens}
        drafts: {id: `DraftCounts`} of speculative decoding
    """

    name: str
    decode: Callable
    drafts: dict = field(default_factory=dict)


def search(name, model, max_tokens=None, **options):
    """The `Way` of fairseq's own search.

    Args:
        model: `Teacher`
        max_tokens: of a batch; None: as `fairseq-seqkd generate`
        options: of `SearchOptions`
    """
    engine = FairseqEngine(model, SearchOptions(**options), max_tokens, keep_unfinished=True)

    def decode(dataset, ids):
        return {id_: found[0][0].tolist() for id_, found in engine(dataset, ids)}

    return Way(name, decode)


def speculation(name, teacher, student, rule, draft_tokens):
    """The `Way` of a student that drafts for a teacher."""
    translator = DraftedTeacher(teacher, student, rule, draft_tokens)

    def decode(dataset, ids):
        found = {int(id_): translator(dataset[int(id_)]["source"], int(id_)) for id_ in ids}
        way.drafts.update({id_: one.drafts for id_, one in found.items()})
        return {id_: one.tokens.tolist() for id_, one in found.items()}

    way = Way(name, decode)
    return way


def ways_of(teacher, student, drafts):
    """All ways, the one that others are compared with first."""
    alone, sampling = {"max_tokens": ONE_LINE}, {"sampling": True, "beam": 1}
    middle = drafts[len(drafts) // 2]
    return [
        search("teacher, greedy", teacher, beam=1, **alone),
        *(
            speculation(f"speculative, greedy, {k} drafted", teacher, student, GreedyRule(), k)
            for k in drafts
        ),
        search("teacher, samples", teacher, **sampling, **alone),
        speculation(
            f"speculative, samples, {middle} drafted", teacher, student, SamplingRule(), middle
        ),
        search("teacher, beam 5", teacher, beam=5, **alone),
        search("student, greedy", student, beam=1, **alone),
        search("teacher, greedy, in batches", teacher, beam=1),
        search("teacher, beam 5, in batches", teacher, beam=5),
    ]


def rows_of(ways, results):
    """A row of the table for each way."""
    first_outputs, first_seconds = results[0]
    baseline = sum(map(median, first_seconds))
    for way, (outputs, seconds) in zip(ways, results):
        total = sum(map(median, seconds))
        equal = sum(outputs[id_] == tokens for id_, tokens in first_outputs.items())
        drafts = sum(way.drafts.values(), DraftCounts())
        numbers = [drafts.accepted_per_round, drafts.acceptance_rate, drafts.block_efficiency]
        cells = [f"{number:.2f}" for number in numbers] if way.drafts else ["", "", ""]
        speed, relative = len(outputs) / total, total / baseline
        yield [way.name, f"{speed:.1f}", f"{relative:.2f}", *cells, f"{equal}"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--sentences", type=int, required=True)
    parser.add_argument("--draft-tokens", type=int, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split = open_split(arguments.data, "test")
    teacher, student = (
        load_teacher(path, arguments.data, student_task=split.task)
        for path in (arguments.teacher, arguments.student)
    )
    ids = list(range(min(arguments.sentences, len(split))))
    chunks = [ids[start::4] for start in range(4)]
    ways = ways_of(teacher, student, arguments.draft_tokens)
    steps = len(ways) * (arguments.rounds + 1) * len(ids)
    with progress_bar(total=steps, unit=" sentences") as bar:
        decoders = [lambda chunk, way=way: way.decode(split.dataset, chunk) for way in ways]
        results = decode_in_turns(
            decoders, chunks, arguments.rounds, lambda chunk: bar.update(len(chunk))
        )
    sources = [split.dataset[id_]["source"] for id_ in ids]
    models = [teacher, student]
    costs = step_seconds(models, sources, arguments.rounds, SearchOptions(beam=1))
    table = tabulate(
        list(rows_of(ways, results)),
        headers=[
            *("decoding", "sentences/s", "time relative to greedy", "accepted a round"),
            *("acceptance rate", "block efficiency", "lines as greedy"),
        ],
        tablefmt="github",
        colalign=("left", *["right"] * 6),
        disable_numparse=True,
    )
    report = (
        f"{table}\n\nMedians of {arguments.rounds} rounds over {len(ids)} sentences, a line at "
        f"a time unless said otherwise, one thread. A step of the teacher takes "
        f"{1000 * costs[0]:.2f} ms, one of the student {1000 * costs[1]:.2f} ms (cost ratio "
        f"{costs[1] / costs[0]:.2f}).\n"
    )
    print(report)
    with atomic_file(arguments.out) as file:
        file.write(report.encode())


if __name__ == "__main__":
    main()
