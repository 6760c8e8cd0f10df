"""A hundred real lines of each test set, and trained students."""

import gzip
import json

import pytest
import sacrebleu
import sentencepiece
from conftest import CTRANSLATE2, ROOT
from processes import fairseq

from fairseq_seqkd.cli import main as cli

SHARED = ROOT.parent / "shared" / "multi30k"
SPLITS = {"valid": "val", "test": "test_2016_flickr", "test1": "test_2018_flickr"}
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="../shared/multi30k is not there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Raw text, and its data-bin ``data``."""
    folder = tmp_path_factory.mktemp("multi30k")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(SHARED / "spm.model"))
    for split, name in SPLITS.items():
        for lang in ("de", "en"):
            with gzip.open(SHARED / f"{name}.{lang}.gz", "rt", encoding="utf-8") as file:
                lines = [line.rstrip("\n") for line in file][:100]
            (folder / f"raw.{split}.{lang}").write_text("\n".join(lines) + "\n")
            cut = [" ".join(pieces.encode(line, out_type=str)) for line in lines]
            (folder / f"{split}.{lang}").write_text("\n".join(cut) + "\n")
    fairseq(
        *["preprocess", "-s", "de", "-t", "en", "--joined-dictionary"],
        *["--srcdict", SHARED / "dict.txt", "--validpref", folder / "valid"],
        *["--testpref", f"{folder / 'test'},{folder / 'test1'}", "--destdir", folder / "data"],
    )
    return folder


@pytest.fixture(scope="module")
def out(folder):
    """The report of a table of results: several splits, seeds and differences."""
    kd, none = (SHARED / f"student-{name}.pt" for name in ("kd", "none"))
    references = [folder / f"raw.{split}.en" for split in ("test", "test1")]
    command = [
        *["evaluate", folder / "data", "--split", "test,test1", "--ref", *references],
        *["--remove-bpe", "sentencepiece", "--beams", 1, 5, "--tune-lenpen", "valid"],
        *["--engines", "ctranslate2:float32", "--devices", "cpu", "--rounds", 1],
        *["--checkpoints", f"none={none}", f"kd={kd}", f"both={none},{kd}"],
        *["--against", "none:beam1", "--out", folder / "out"],
    ]
    cli.main([*map(str, command)])
    return folder / "out"


@pytest.fixture(scope="module")
def rows(out):
    content = json.loads((out / "report.json").read_text())
    return {(row["model"], row["beam"]): row for row in content["rows"]}


@CTRANSLATE2
def test_distillation_gains_on_all_lines_together(rows):
    gain = rows["kd", 5]["gains"]["none:beam1"]
    assert gain["low"] > 0 and rows["kd", 5]["bleu"] > rows["none", 5]["bleu"] > 30
    parts = [rows["kd", 5]["splits"][name]["gain"] for name in ("test", "test1")]
    assert all(part["high"] - part["low"] > gain["high"] - gain["low"] for part in parts)


@CTRANSLATE2
def test_seeds_are_those_of_the_single_rows(rows):
    for beam in (1, 5):
        singles = [rows[name, beam]["bleu"] for name in ("none", "kd")]
        assert rows["both", beam]["seed_bleu"] == singles
        assert rows["both", beam]["bleu"] == pytest.approx(sum(singles) / 2)
        penalties = [seed["lenpen"] for seed in rows["both", beam]["seeds"]]
        single = [rows[name, beam]["seeds"][0]["lenpen"] for name in ("none", "kd")]
        assert penalties == single


@CTRANSLATE2
def test_outputs_have_the_scores(folder, out, rows):
    row = rows["kd", 5]
    for split, scores in row["splits"].items():
        texts = (out / row["seeds"][0]["outputs"][split]).read_text().splitlines()
        references = (folder / f"raw.{split}.en").read_text().splitlines()
        assert len(texts) == 100
        assert sacrebleu.corpus_bleu(texts, [references]).score == scores["bleu"]
        sources = (out / "outputs" / split / "source.txt").read_text().splitlines()
        raw = (folder / f"raw.{split}.de").read_text().splitlines()
        assert sum(one == line for one, line in zip(sources, raw)) > 90


@CTRANSLATE2
def test_trained_models_have_few_defects(out, rows):
    content = json.loads((out / "report.json").read_text())
    assert content["reference_defects"]["empty"] == content["reference_defects"]["loops"] == 0
    for row in rows.values():
        assert row["defects"]["empty"] == row["defects"]["copies"] == 0
        assert row["defects"]["loops"] < 10
    page = (out / "report.html").read_text()
    assert "Where none, greedy and kd, greedy differ most" in page
