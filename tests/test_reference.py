"""The tables of flags: complete, and the page in docs/ is what the code says now."""

import argparse

import pytest
from conftest import ROOT
from fairseq.dataclass.utils import gen_parser_from_dataclass

from fairseq_seqkd import reference
from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.criterions.imit_kd import ImitKDConfig
from fairseq_seqkd.registry import flag
from fairseq_seqkd.tasks.translation_seqkd import TranslationSeqKDConfig


def test_the_page_is_current():
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert page == reference.page(), "run: make flags"


def test_every_criterion_has_a_section():
    registered = {
        name
        for name, criterion in reference.CRITERION_REGISTRY.items()
        if issubclass(criterion, DistillCriterion)
    }
    assert registered == set(reference.CRITERIA)


@pytest.mark.parametrize("config", [ImitKDConfig, TranslationSeqKDConfig])
def test_every_flag_of_a_configuration_is_in_a_table(config):
    parser = argparse.ArgumentParser(add_help=False)
    gen_parser_from_dataclass(parser, config())
    flags = {one for action in parser._actions for one in action.option_strings}
    stock = argparse.ArgumentParser(add_help=False)
    gen_parser_from_dataclass(stock, reference.TranslationConfig())
    flags -= {one for action in stock._actions for one in action.option_strings}
    page = reference.page()
    assert flags and {one for one in flags if one not in page} == set()


@pytest.mark.parametrize("name", reference.NAMES)
def test_a_section_names_options_defaults_and_meanings(name):
    section = reference.section(name)
    text = reference.as_text(section)
    assert section.entries
    for entry in section.entries:
        assert entry.name in text and entry.meaning and entry.default in text


def test_presets_have_their_own_defaults():
    defaults = {one.name: one.default for one in reference.section("gkd").entries}
    assert defaults["--kd-divergence"] == "jsd" and defaults["--kd-alpha"] == "1"
    assert defaults["--kd-coin"] == "batch"  # an option's parameter that the preset sets


def test_the_command_prints_a_section_or_all(capsys):
    cli.main(["flags", "kd-divergence"])
    one = capsys.readouterr().out
    assert "--kd-skew (default: 0.1)" in one and "--kd-keep" not in one
    cli.main(["flags"])
    everything = capsys.readouterr().out
    assert all(flag(axis) in everything for axis in reference.AXIS_OF)
    cli.main(["flags", "--markdown"])
    assert capsys.readouterr().out == reference.page()


def test_another_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["flags", "word_kdd"])
    assert (
        "'word_kdd' has no flags, expected one of distill, word_kd" in capsys.readouterr().err
    )
