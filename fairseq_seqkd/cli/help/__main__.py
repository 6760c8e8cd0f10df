"""Write the help of every subcommand, as its parser has it: ``make flags``."""

import contextlib
import io
import os
from unittest import mock

from fairseq_seqkd.cli.help import path_of
from fairseq_seqkd.cli.main import SUBCOMMANDS, import_subcommand, parser_of


def help_of(name):
    """The help of a subcommand's parser, in lines of at most 94 characters."""
    parser = parser_of(name, import_subcommand(name))
    with io.StringIO() as page, mock.patch.dict(os.environ, COLUMNS="96"):
        with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
            parser.parse_args([name, "--help"])
        return page.getvalue()


def write_all():
    """Write all files."""
    for name in SUBCOMMANDS:
        with open(path_of(name), "w", encoding="utf-8") as file:
            file.write(help_of(name))


if __name__ == "__main__":
    write_all()
