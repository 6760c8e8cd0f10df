"""One name for one thing, the field's own: names that were given up do not come back.

The glossary is in the design; CHANGELOG.md has old and new names side by side.
"""

import ast
import re

import pytest
import structure

GIVEN_UP = {
    *("own", "own_rows", "own_length", "own_divergence", "n_own_rows", "n_own_tokens"),
    *("kd_own_divergence", "kd_reverse_share", "kd_easy_share", "reverse_share", "easy_share"),
    *("Writer", "writer", "writers", "writes", "can_write", "check_can_write"),
    *("space", "Outcomes", "outcome", "outcomes", "OUTCOMES", "known"),
    *("facts", "Facts", "Statistics", "AtPositions", "place", "surprise", "median_surprise"),
    *("counts", "labelled", "n_labelled", "only", "Read", "read", "_Read", "_Picked", "picked"),
    *("Share", "share", "this_share", "data_parallel_share", "share_of_zeros"),
    *("choose", "Choice", "Choices", "ChunkChoices", "choice", "pick", "of"),
    *("Selection", "selection", "selection_of", "subword_model", "backend", "BACKENDS"),
}
FLAGS = {
    *("--kd-own-divergence", "--kd-reverse-share", "--kd-easy-share", "--subword-model"),
    *("--backend", "--teacher-backend"),
}
MODULES = {"select", "selection", "choose", "axis", "distribution", "shards", "objectives"}
RIDDLE = re.compile(r"(What|Who|Whose|Those|Whatever)\b")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def defined_names(tree):
    """Yield (line, name) of classes, functions, arguments and attributes of a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, node.target.id  # a field of a dataclass or a tuple
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant):
                    yield key.lineno, key.value  # a key of a log, a report or a manifest


def strings(tree):
    """Yield (line, text) of every string of a file, with the parts of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("path", structure.python_files(), ids=lambda path: path.name)
def test_no_name_that_was_given_up(path):
    tree = structure.parse(path)
    assert [(n, name) for n, name in defined_names(tree) if name in GIVEN_UP] == []
    flags = [(n, flag) for n, text in strings(tree) for flag in FLAGS if flag in text.split()]
    assert flags == []
    assert path.stem not in MODULES


@pytest.mark.parametrize("path", structure.python_files(), ids=lambda path: path.name)
def test_no_docstring_is_a_riddle(path):
    tree = structure.parse(path)
    nodes = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    texts = {getattr(node, "name", path.name): ast.get_docstring(node) or "" for node in nodes}
    assert [name for name, text in texts.items() if RIDDLE.match(text)] == []


def test_masks_are_called_masks():
    """An argument that is documented as True where something counts ends in ``_mask``."""
    described = re.compile(r"^\s+(\w+): \([\w, ]+\) True\b", re.MULTILINE)
    names = set()
    for path in structure.python_files():
        names |= set(described.findall(path.read_text(encoding="utf-8")))
    assert names and {name for name in names if not name.endswith("mask")} == set()
