"""Print the flags of the criteria, of the task, and of the axes' options.

fairseq-train --help shows no flags of plug-ins. NAME is a criterion (word_kd), the task
(translation_seqkd) or an axis (kd_divergence); without NAME all are printed.

Example:
    fairseq-seqkd flags word_kd
    fairseq-seqkd flags kd_divergence
"""

from fairseq_seqkd import reference


def add_arguments(parser):
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(reference.NAMES))
    parser.add_argument(
        "--markdown", action="store_true", help="print the page docs/flags.md, with all of them"
    )


def run(arguments):
    if arguments.markdown:
        print(reference.page(), end="")
        return
    # A flag's name serves as well: --kd-divergence is the axis kd_divergence.
    name = arguments.name and arguments.name.strip("-").replace("-", "_")
    names = [name] if name else reference.NAMES
    print("\n\n".join(reference.as_text(reference.section(name)) for name in names))
