"""``fairseq-seqkd SUBCOMMAND``: each subcommand is one file beside this one."""

import argparse
import logging
import sys

from fairseq_seqkd.cli import (
    cache,
    evaluate,
    export,
    generate,
    import_,
    merge,
    prune,
    user_dir,
)

SUBCOMMANDS = {
    "user-dir": user_dir,
    "generate": generate,
    "merge": merge,
    "import": import_,
    "cache": cache,
    "prune": prune,
    "evaluate": evaluate,
    "export": export,
}


def main(arguments=None):
    """Run one subcommand; an expected error becomes one line and exit status 2."""
    parser = argparse.ArgumentParser(prog="fairseq-seqkd")
    subparsers = parser.add_subparsers(dest="subcommand", required=True)
    for name, module in SUBCOMMANDS.items():
        summary = module.__doc__.split("\n")[0]
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("fairseq_seqkd").setLevel(logging.INFO)
    try:
        SUBCOMMANDS[parsed.subcommand].run(parsed)
    except (OSError, ValueError) as error:
        print(f"fairseq-seqkd {parsed.subcommand}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"fairseq-seqkd {parsed.subcommand}: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
