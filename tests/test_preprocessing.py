"""Other ways to preprocess: subword_nmt joints, Moses tokenisation, Windows line ends.

One corpus has all three, and every command works on it.
"""

import re

import pytest
import sacrebleu
from conftest import USER_DIR, all_nbest, load_split, preprocess, tokens_of, train
from processes import fairseq

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.evaluate.measure import evaluate
from fairseq_seqkd.evaluate.settings import Settings
from fairseq_seqkd.io.files import read_json

pytest.importorskip("sacremoses")
MOSES = [(" by ", " &quot; by &quot; "), ("was ", "was n&apos;t "), ("the ", "the @-@ ")]


def cut(word):
    """Subwords of four characters with the joints of subword_nmt; entities stay whole."""
    return word if word[0] in "&@" else re.sub(r"(\w{4})(?=\w)", r"\1@@ ", word)


def to_windows(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


@pytest.fixture(scope="module")
def folder(text, tmp_path_factory):
    """Text, its data-bin and a teacher; the dictionaries have Windows line ends as well."""
    folder = tmp_path_factory.mktemp("windows")
    (folder / "text").mkdir()
    for path in text.iterdir():
        content = path.read_text()
        for plain, tokenised in MOSES:
            content = content.replace(plain, tokenised)
        lines = [" ".join(map(cut, line.split())) for line in content.split("\n")]
        (folder / "text" / path.name).write_text("\n".join(lines))
        to_windows(folder / "text" / path.name)
    data = preprocess(folder / "text", folder / "data-bin")
    for side in ("src", "tgt"):
        to_windows(data / f"dict.{side}.txt")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "40"]
    train(data, folder / "teacher", *loss, "--lr", "0.02")
    return folder


@pytest.fixture(scope="module")
def teacher(folder):
    return str(folder / "teacher" / "checkpoint_last.pt")


@pytest.fixture(scope="module")
def generated(folder, teacher):
    """What stock fairseq-generate prints for the test split."""
    return fairseq(
        *["generate", folder / "data-bin", "--path", teacher, "--user-dir", USER_DIR, "--cpu"],
        *["--task", "translation", "--beam", 3, "--required-batch-size-multiple", 1],
        *["--nbest", 3, "--remove-bpe=subword_nmt", "--tokenizer", "moses"],
        *["--source-lang", "src", "--target-lang", "tgt"],
    )


def run(*arguments):
    cli.main([*map(str, arguments)])


def test_no_word_of_the_data_is_unknown(folder):
    dataset = load_split(folder / "data-bin").dataset
    assert dataset.tgt_dict.unk() not in sum((t.tolist() for t in dataset.tgt), [])
    symbols = dataset.tgt_dict.symbols
    assert "&apos;t" not in symbols and "n&apos;t" in symbols
    assert any(symbol.endswith("@@") for symbol in symbols)
    assert not any("\r" in symbol for symbol in symbols)


def test_generate_select_and_import(folder, teacher, tmp_path):
    data, store = folder / "data-bin", tmp_path / "store"
    into = ["--pseudo-targets", store, "--split", "valid", "--threads", 1]
    search = ["--teacher-path", teacher, "--beam", 3, "--sampling"]  # samples end
    closest = ["--select", "closest", "--remove-bpe", "subword_nmt", "--moses", "en"]
    run("generate", data, *into, *search, *closest)
    assert read_json(store / "closest" / "target_spec.json")["sentences"]["teacher"] > 22

    lines = [
        f"H-{id_}\t{score}\t{load_split(data).dataset.tgt_dict.string(tokens)}\r\n"
        for id_, sentence in all_nbest(store).items()
        for tokens, score in sentence.hypotheses
    ]
    (tmp_path / "output").write_bytes("".join(lines).encode())
    other = ["--pseudo-targets", tmp_path / "imported", "--split", "valid", "--threads", 1]
    run("import", data, tmp_path / "output", *other)
    imported = all_nbest(tmp_path / "imported")
    for id_, sentence in all_nbest(store).items():
        assert tokens_of(imported[id_]) == tokens_of(sentence)


def test_evaluate_scores_what_fairseq_generate_prints(folder, teacher, generated, text):
    best = {}
    for id_, line in re.findall(r"^D-(\d+)\t\S+\t(.*)$", generated, re.MULTILINE):
        best.setdefault(int(id_), line)
    references = (text / "test.tgt").read_text().split("\n")[:20]
    expected = sacrebleu.corpus_bleu([best[i] for i in range(20)], [references]).score
    settings = Settings(
        *[str(folder / "data-bin"), "test"],
        **{"engines": ["fairseq"], "devices": ["cpu"], "beams": (3,), "rounds": 1},
        **{"remove_bpe": "subword_nmt", "moses": "en", "reference_files": [text / "test.tgt"]},
    )
    (row,) = evaluate({"t": teacher}, settings)[0].rows
    assert row.bleu == pytest.approx(expected)
    assert not any("@@" in line or "&apos;" in line for line in best.values())


def test_cache_and_train(folder, teacher, tmp_path):
    data, cache = folder / "data-bin", tmp_path / "cache"
    run("cache", data, "--teacher-path", teacher, "--kd-cache", cache, "--threads", 1)
    loss = ["--task", "translation", "--criterion", "word_kd", "--max-update", "2"]
    log = train(data, tmp_path / "student", *loss, "--kd-cache", cache)
    assert "done training" in log


def test_export(folder, teacher, tmp_path):
    run("export", teacher, "--to", "fairseq", "--out", tmp_path / "student.pt")
    pytest.importorskip("ctranslate2")
    run("export", teacher, "--to", "ctranslate2", "--out", tmp_path / "shipped")
    for side in ("src", "tgt"):
        shipped = (tmp_path / "shipped" / f"dict.{side}.txt").read_bytes()
        windows = (folder / "data-bin" / f"dict.{side}.txt").read_bytes()
        assert shipped == windows.replace(b"\r", b"")
