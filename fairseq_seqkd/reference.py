"""All flags of the criteria, the task and the axes, as text for a terminal or as Markdown.

They are read from the configurations and the registry, so that nothing is written twice.
``fairseq-seqkd flags`` prints them, and ``docs/flags.md`` is made of them.
"""

import dataclasses
import textwrap
from typing import List, NamedTuple

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.tasks.translation import TranslationConfig

from fairseq_seqkd.criterions.config import AXES, DistillConfig
from fairseq_seqkd.losses.schedules import SCHEDULES
from fairseq_seqkd.losses.support import LEFTOVER
from fairseq_seqkd.pruning.schedules import SCHEDULES as PRUNE_SCHEDULES
from fairseq_seqkd.pruning.schemes import SCHEMES
from fairseq_seqkd.registry import flag
from fairseq_seqkd.tasks.translation_seqkd import TranslationSeqKDConfig

CRITERIA = ("distill", "word_kd", "seq_kd", "seq_inter", "imit_kd", "gkd")
DSKD = "dskd"
TASK = "translation_seqkd"
AXIS_OF = {axis.name: axis for axis in (*AXES, SCHEDULES, LEFTOVER, SCHEMES, PRUNE_SCHEDULES)}
NAMES = (*CRITERIA, DSKD, TASK, *AXIS_OF)
_PARAMETERS = {name for axis in AXIS_OF.values() for name in axis.parameters()}
_HELP = {one.name: one.metadata.get("help") for one in dataclasses.fields(DistillConfig)}
_HEAD = """\
# Flags

`fairseq-train --criterion word_kd --help` shows no flags of plug-ins. `fairseq-seqkd flags`
prints this page, and `fairseq-seqkd flags NAME` a part of it. `make flags` generates it.

Each criterion but `dskd` is `distill` with other defaults. An option of an axis may have flags
of its own; with another option they are refused.
"""


class Entry(NamedTuple):
    """A flag or an option.

    Attributes:
        name: such as ``--kd-alpha``
        default: as text; empty if there is none
        meaning: one sentence
    """

    name: str
    default: str
    meaning: str


class Section(NamedTuple):
    """The flags of a criterion or of the task, or the options of an axis.

    Attributes:
        name: one of ``NAMES``
        use: how it is named on the command line
        entries: list of `Entry`
    """

    name: str
    use: str
    entries: List[Entry]


def section(name):
    """The `Section` of a name.

    Raises:
        ValueError: it is not one of ``NAMES``
    """
    if name in CRITERIA:
        return Section(name, f"--criterion {name}", criterion_entries(name))
    if name == DSKD:
        fields = own_fields(CRITERION_DATACLASS_REGISTRY[name])
        return Section(name, f"--criterion {name}", [_entry(field) for field in fields])
    if name == TASK:
        return Section(name, f"--task {name}, beside stock translation's", task_entries())
    if name in AXIS_OF:
        return Section(name, flag(name), axis_entries(AXIS_OF[name]))
    raise ValueError(f"{name!r} has no flags, expected one of {', '.join(NAMES)}")


def criterion_entries(name):
    """A criterion's flags; those that it sets for an option are at the end."""
    fields = own_fields(CRITERION_DATACLASS_REGISTRY[name])
    preset = CRITERION_REGISTRY[name].preset
    return [_entry(field) for field in fields] + [
        Entry(flag(key), str(value), "see its axis") for key, value in preset.items()
    ]


def task_entries():
    """The flags that the task has beside those of stock translation."""
    stock = {one.name for one in dataclasses.fields(TranslationConfig)}
    fields = own_fields(TranslationSeqKDConfig)
    return [_entry(field) for field in fields if field.name not in stock]


def axis_entries(axis):
    """The options of an axis, each followed by the flags of its own."""
    entries = []
    for name, option in axis.options.items():
        entries.append(Entry(name, "", option.help))
        entries += [
            Entry(f"{name}: {flag(one.name)}", _shown(one.default), one.help)
            for one in option.parameters.values()
        ]
    return entries


def own_fields(config):
    """A configuration's fields that are flags: no links to others, no parameters of options."""
    return [
        field
        for field in dataclasses.fields(config)
        if _help_of(field) is not None and field.name not in _PARAMETERS
    ]


def _help_of(field):
    return field.metadata.get("help") or _HELP.get(field.name)


def _entry(field):
    return Entry(flag(field.name), _shown(field.default), _help_of(field))


def _shown(default):
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default is None else str(default)


def as_text(one, width=88):
    """A `Section` for a terminal."""
    lines = [one.use]
    for entry in one.entries:
        default = f" (default: {entry.default})" if entry.default else ""
        meaning = textwrap.fill(entry.meaning, width - 6)
        lines += [f"  {entry.name}{default}", textwrap.indent(meaning, " " * 6)]
    return "\n".join(lines)


def as_markdown(one):
    """A `Section` as a table under a heading."""
    rows = [[f"`{entry.name}`", entry.default, entry.meaning] for entry in one.entries]
    return f"## `{one.use}`\n\n{_table(rows, ['', 'default', 'meaning'])}\n"


def page():
    """The content of ``docs/flags.md``: criteria side by side, the task, and the axes."""
    sections = [as_markdown(section(name)) for name in (DSKD, TASK, *AXIS_OF)]
    return "\n".join([_HEAD, _criteria_side_by_side(), *sections])


def _criteria_side_by_side():
    entries = {name: {one.name: one for one in criterion_entries(name)} for name in CRITERIA}
    flags = dict.fromkeys(key for of_one in entries.values() for key in of_one)
    rows = []
    for key in flags:
        ones = [entries[name].get(key) for name in CRITERIA]
        meaning = next(one.meaning for one in ones if one)
        rows.append([f"`{key}`", *(one.default if one else "" for one in ones), meaning])
    return f"## Criteria\n\n{_table(rows, ['flag', *CRITERIA, 'meaning'])}\n"


def _table(rows, headers):
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )
