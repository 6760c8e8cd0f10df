"""The command ``fairseq-seqkd SUBCOMMAND``; each subcommand is a module of this package."""

import argparse
import ast
import importlib
import logging
import os
import shlex
import sys

import fairseq_seqkd
from fairseq_seqkd.cli.help import help_page

# {subcommand: its module}. Only the requested one is imported, and the docstrings of the others
# are parsed: importing fairseq takes seconds, and doctor must run where that fails.
SUBCOMMANDS = {
    "doctor": "doctor",
    "flags": "flags",
    "user-dir": "user_dir",
    "generate": "generate",
    "merge": "merge",
    "import": "import_",
    "mix": "mix",
    "cache": "cache",
    "round": "round",
    "prune": "prune",
    "evaluate": "evaluate",
    "export": "export",
    "translate": "translate",
}


def main(arguments=None):
    """Run one subcommand; an expected error becomes one line, and exit status 2 or its own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = next((word for word in arguments if word in SUBCOMMANDS), None)
    if name and {"-h", "--help"} & set(arguments):
        print(help_page(name), end="")
        sys.exit(0)
    module = name and import_subcommand(name)
    parsed = parser_of(name, module).parse_args(arguments)
    parsed.command_line = " ".join(map(shlex.quote, ["fairseq-seqkd", *arguments]))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("fairseq_seqkd").setLevel(logging.INFO)
    try:
        module.run(parsed)
    except (OSError, ValueError) as error:
        _fail(name, error, getattr(error, "exit_status", 2))
    except KeyboardInterrupt:
        _fail(name, "interrupted", 130)


def parser_of(requested, module):
    """A parser of all subcommands, with the arguments of the requested one."""
    parser = argparse.ArgumentParser(prog="fairseq-seqkd")
    subparsers = parser.add_subparsers(dest="subcommand", required=True)
    for name in SUBCOMMANDS:
        text = _docstring(name)
        subparser = subparsers.add_parser(
            name,
            help=text.split("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == requested:
            module.add_arguments(subparser)
    return parser


def _docstring(name):
    path = os.path.join(os.path.dirname(__file__), f"{SUBCOMMANDS[name]}.py")
    with open(path, encoding="utf-8") as file:
        return ast.get_docstring(ast.parse(file.read()))


def import_subcommand(name):
    """The module of a subcommand; an installation that cannot work ends the process."""
    if name != "user-dir":
        fairseq_seqkd.register_if_possible()
    try:
        return importlib.import_module(f"fairseq_seqkd.cli.{SUBCOMMANDS[name]}")
    except Exception:
        if fairseq_seqkd.import_error is None:
            raise
        _fail(name, f"{fairseq_seqkd.import_error}. Next: fairseq-seqkd doctor", 2)


def _fail(name, error, status):
    print(f"fairseq-seqkd {name}: {error}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
