"""Mix data-bins into one that fairseq trains on, each of them as often as you say.

A PART is a data-bin, or a store's data-bin such as pseudo/best; PART=N has each of its pairs N
times, at the price of N entries in the index and not of N copies of the text. reverse:FOLDER is
the data-bin of a store of the opposite direction: back-translated data. The validation and test
sets and the dictionaries are those of the first part.

Example:
    fairseq-seqkd mix mixture data-bin=2 pseudo/best mono/best
    fairseq-seqkd mix mixture data-bin=2 reverse:back/best
"""

from fairseq_seqkd.pseudo.mixing import Part, mix, summary


def add_arguments(parser):
    parser.add_argument("out", metavar="OUT", help="the new data-bin")
    parser.add_argument(
        "parts",
        nargs="+",
        metavar="PART[=N]",
        help="a data-bin, each of whose training pairs the mixture has N times; default: 1",
    )


def run(arguments):
    report = mix(arguments.out, [Part.parse(part) for part in arguments.parts])
    for line in summary(arguments.out, report):
        print(line)
    print(f"Train on it:\n  fairseq-train {arguments.out} --task translation ...")
