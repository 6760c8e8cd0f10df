"""Measures of the package's structure: imports, lengths, and the files of one training step.

``python tests/structure.py`` prints them; ``test_structure.py`` holds them to their limits.
"""

import ast
import statistics
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "fairseq_seqkd"
# The rooms, from the bottom up: a room imports from those below it alone.
LEVELS = (
    ("compat",),
    ("io", "registry"),
    ("chunked",),
    ("models", "axis_config"),
    ("decoding", "losses"),
    ("teacher", "prefixes", "databin"),
    ("pseudo", "cache", "pruning", "shortlist"),
    ("criterions", "tasks", "rounds"),
    ("evaluate", "export", "translate", "doctor", "reference"),
    ("cli",),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def python_files():
    """Every file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def parse(path):
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path):
    """The room of a file: the folder or the file right below the package; None for __init__."""
    first = path.relative_to(PACKAGE).parts[0]
    return None if first == "__init__.py" else first.replace(".py", "")


def imported_rooms(path):
    """The rooms that a file imports from, wherever in the file."""
    rooms = set()
    for node in ast.walk(parse(path)):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "fairseq_seqkd" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms & set(LEVEL_OF)


def arrows():
    """{(room, room that it imports): files that do so}, without arrows inside a room."""
    found = defaultdict(list)
    for path in python_files():
        room = room_of(path)
        for other in imported_rooms(path) - {room}:
            if room is not None:
                found[room, other].append(str(path.relative_to(PACKAGE)))
    return dict(found)


def upward_arrows():
    """The arrows that do not point down."""
    return {
        arrow: files
        for arrow, files in arrows().items()
        if LEVEL_OF[arrow[0]] <= LEVEL_OF[arrow[1]]
    }


def cycles():
    """Pairs of rooms that reach each other by imports."""
    reached = {room: {room} for room in LEVEL_OF}
    for _ in LEVEL_OF:
        for room, other in arrows():
            reached[room] |= reached[other]
    return sorted((a, b) for a in reached for b in reached[a] if a < b and a in reached[b])


def function_lengths():
    """{file:function: lines, without decorators}."""
    lengths = {}
    for path in python_files():
        for node in ast.walk(parse(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                name = f"{path.relative_to(PACKAGE)}:{node.name}:{node.lineno}"
                lengths[name] = node.end_lineno - node.lineno + 1
    return lengths


def file_lengths():
    """{file: lines}."""
    return {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files()
    }


class StepProfile:
    """The package's files that one call of a function runs code of.

    Attributes:
        calls: {file: number of calls of its functions}
    """

    def __init__(self):
        self.calls = defaultdict(int)

    def __call__(self, frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and PACKAGE in path.parents:
            self.calls[str(path.relative_to(PACKAGE))] += 1

    def measure(self, function, *arguments, **keywords):
        """The function's result."""
        sys.setprofile(self)
        try:
            return function(*arguments, **keywords)
        finally:
            sys.setprofile(None)


def profile_second_step(arguments, queue):
    """In a process of its own: train by fairseq's command, and profile its second update.

    Args:
        arguments: of fairseq-train
        queue: gets {file: number of calls}
    """
    from fairseq.trainer import Trainer
    from fairseq_cli import train

    plain, profile, updates = Trainer.train_step, StepProfile(), []

    def train_step(self, *arguments, **keywords):
        updates.append(1)
        if len(updates) != 2:
            return plain(self, *arguments, **keywords)
        return profile.measure(plain, self, *arguments, **keywords)

    Trainer.train_step = train_step
    sys.argv = ["fairseq-train", *arguments]
    train.cli_main()
    queue.put(dict(profile.calls))


def summary():
    """The measures, as lines to print."""
    lengths, files = function_lengths(), file_lengths()
    longest_function, longest_file = max(lengths, key=lengths.get), max(files, key=files.get)
    values = sorted(lengths.values())
    return [
        f"{len(files)} files, the longest {longest_file} with {files[longest_file]} lines",
        f"{len(values)} functions: median {statistics.median(values)} lines, "
        f"p90 {values[int(0.9 * len(values))]}, the longest {longest_function} with "
        f"{lengths[longest_function]}",
        f"arrows between rooms that do not point down: {len(upward_arrows())}",
        f"cycles between rooms: {len(cycles())}",
    ]


if __name__ == "__main__":
    print("\n".join(summary()))
    for (room, other), names in upward_arrows().items():
        print(f"  {room} -> {other}: {', '.join(names)}")
