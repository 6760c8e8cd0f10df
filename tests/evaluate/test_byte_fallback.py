"""Data with byte pieces, end to end: scores and selections are on characters."""

import re
import shutil

import pytest
import sacrebleu
import sentencepiece
from conftest import USER_DIR, load_split, preprocess, train
from processes import fairseq

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.decoding.text import Detokeniser
from fairseq_seqkd.evaluate.candidates import Candidate
from fairseq_seqkd.evaluate.corpus import load_references
from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.settings import Settings
from fairseq_seqkd.io.files import read_json


@pytest.fixture(scope="module")
def folder(text, tmp_path_factory):
    """Text with letters that its sentencepiece model has no piece for, and a teacher."""
    folder = tmp_path_factory.mktemp("bytes")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text / "train.tgt"),
        model_prefix=str(folder / "spm"),
        vocab_size=310,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    shutil.copytree(text, folder / "text")
    for path in (folder / "text").iterdir():
        lines = path.read_text().replace("the ", "th\u00e9 ").replace("was ", "w\u00e3s ")
        (folder / path.name).write_text(lines, encoding="utf-8")
        cut = [" ".join(pieces.encode(line, out_type=str)) for line in lines.split("\n")]
        path.write_text("\n".join(cut), encoding="utf-8")
    data = preprocess(folder / "text", folder / "data-bin")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "40"]
    train(data, folder / "teacher", *loss, "--lr", "0.02", "--max-target-positions", "90")
    return folder


@pytest.fixture(scope="module")
def teacher(folder):
    return str(folder / "teacher" / "checkpoint_last.pt")


def options_of(way, folder):
    if way == "with the model":
        return {"spm_model": str(folder / "spm.model")}
    return {"remove_bpe": "sentencepiece"}


@pytest.mark.parametrize("way", ["with the model", "without it"])
def test_perfect_output_has_full_bleu(folder, teacher, way):
    candidate = Candidate.load("t", teacher, str(folder / "data-bin"), ["valid"])
    options = options_of(way, folder)
    targets = candidate.dataset.tgt
    detokenise = Detokeniser(candidate.dictionary, **options)
    texts = [detokenise.text(targets[i].numpy()) for i in range(len(targets))]
    references = load_references(candidate.splits[0], None, folder / "valid.tgt")
    assert any("th\u00e9" in line for line in references)
    assert sacrebleu.corpus_bleu(texts, [references]).score > 99


@pytest.mark.parametrize("way", ["with the model", "without it"])
def test_evaluate_scores_characters(folder, teacher, way):
    settings = Settings(
        *[str(folder / "data-bin"), "test"],
        **{"engines": ["fairseq"], "devices": ["cpu"], "beams": (2,), "rounds": 1},
        reference_files=[str(folder / "test.tgt")],
        **options_of(way, folder),
    )
    (row,) = evaluate({"t": teacher}, settings)[0].rows
    output = fairseq(
        *["generate", folder / "data-bin", "--path", teacher, "--user-dir", USER_DIR, "--cpu"],
        *["--task", "translation", "--beam", 2, "--required-batch-size-multiple", 1],
    )
    found = dict(re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    texts = [pieces.decode(found[str(i)].split()) for i in range(20)]
    references = (folder / "test.tgt").read_text(encoding="utf-8").split("\n")[:20]
    assert row.bleu == pytest.approx(sacrebleu.corpus_bleu(texts, [references]).score)
    # fairseq-generate and sacrebleu alone would score byte pieces.
    assert row.command.startswith("fairseq-seqkd evaluate ")
    assert ("--spm-model" in row.command) == (way == "with the model")


def test_selections_and_imports(folder, teacher, tmp_path):
    """generate, merge and import take --spm-model; detokenised text gets its bytes back."""
    data, model = str(folder / "data-bin"), ["--spm-model", str(folder / "spm.model")]
    store = ["--pseudo-targets", str(tmp_path / "store"), "--threads", "1"]
    search = ["--teacher-path", teacher, "--beam", "3", "--sampling"]  # samples end
    closest = ["--split", "valid", "--select", "closest"]
    cli.main(["generate", data, *store, *search, *closest, *model])
    spec = read_json(tmp_path / "store" / "closest" / "target_spec.json")
    assert spec["remove_bpe"] == "sentencepiece" and len(spec["spm_model"]) == 64
    other = ["--databin", "other", "--remove-bpe", "sentencepiece"]
    cli.main(["merge", data, *store, *closest, *other])

    one, two = (load_split(tmp_path / "store" / name, "valid") for name in ("closest", "other"))
    targets = [tokens.tolist() for tokens in one.dataset.tgt]
    assert targets == [tokens.tolist() for tokens in two.dataset.tgt]

    gold = load_split(data, "valid").dataset
    printed = [gold.tgt_dict.string(tokens, "sentencepiece") for tokens in gold.tgt]
    assert any("<0xC3><0xA9>" in line for line in printed)
    (tmp_path / "text").write_text("".join(line + "\n" for line in printed), encoding="utf-8")
    into = ["--pseudo-targets", str(tmp_path / "imported"), "--threads", "1"]
    cli.main(["import", data, str(tmp_path / "text"), *into, "--split", "valid", *model])
    imported = load_split(tmp_path / "imported" / "best", "valid").dataset.tgt
    decode = Detokeniser(gold.tgt_dict, "sentencepiece").text
    assert [decode(tokens) for tokens in imported] == [decode(tokens) for tokens in gold.tgt]
