import math
import os

import numpy as np
import pytest
from conftest import LONG, USER_DIR, all_nbest, load_split
from processes import fairseq

from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.importing import Translations, import_store
from fairseq_seqkd.pseudo.selectors import Best
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


def text_of(split, id_):
    """A hypothesis that identifies its sentence: two symbols that spell its number."""
    symbols = split.dataset.tgt_dict.symbols
    return f"{symbols[4 + id_ // 16]} {symbols[4 + id_ % 16]}"


def source_of(split, id_):
    return split.dataset.src_dict.string(split.dataset.src[id_])


def record(split, id_, rank=0, score=None):
    """The lines that fairseq-generate prints for one hypothesis."""
    score = -0.5 - rank if score is None else score
    text = text_of(split, (id_ + 7 * rank) % 160)
    return [f"H-{id_}\t{score}\t{text}", f"D-{id_}\t{score}\t{text}", f"P-{id_}\t-0.5 -0.5"]


def write(path, lines, end="\n"):
    path.write_bytes("".join(line + end for line in lines).encode())
    return str(path)


def imported(root, split, *paths, **options):
    translations = Translations(list(paths), **options)
    return all_nbest(import_store(str(root), split, translations).root)


def spelled(split, sentence):
    """The texts of a sentence's hypotheses."""
    return [split.dataset.tgt_dict.string(tokens) for tokens, _ in sentence.hypotheses]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plain_text(split, tmp_path, end):
    path = write(tmp_path / "text", [text_of(split, i) for i in range(160)], end)
    found = imported(tmp_path / "store", split, path)
    assert [spelled(split, found[i]) for i in range(160)] == [
        [text_of(split, i)] for i in range(160)
    ]
    store = PseudoTargetStore(str(tmp_path / "store"))
    databin = build_databin(store, split, TargetSpec(Best()))
    targets = load_split(databin).dataset.tgt
    assert split.dataset.tgt_dict.string(targets[42]) == text_of(split, 42)


def test_n_lines_a_sentence_are_best_first(split, tmp_path):
    lines = [text_of(split, (i + k) % 160) for i in range(160) for k in (0, 9, 50)]
    found = imported(tmp_path / "store", split, write(tmp_path / "text", lines), nbest=3)
    for i in range(160):
        assert spelled(split, found[i]) == [text_of(split, (i + k) % 160) for k in (0, 9, 50)]


def test_what_fairseq_generate_really_prints(data, teacher, split, tmp_path):
    output = fairseq(
        *["generate", data, "--path", teacher, "--gen-subset", "train", "--user-dir", USER_DIR],
        *["--task", "translation", "--beam", 4, "--nbest", 3, "--cpu"],
        *["--skip-invalid-size-inputs-valid-test", "--required-batch-size-multiple", 1],
    )
    path = write(tmp_path / "output", output.split("\n"))
    found = imported(tmp_path / "store", split, path)
    line = next(line for line in output.split("\n") if line.startswith("H-3\t"))
    _, score, text = line.split("\t")
    assert spelled(split, found[3])[0] == text
    assert found[3].hypotheses[0][1] == pytest.approx(float(score) * math.log(2), abs=1e-6)
    assert max(len(sentence.hypotheses) for sentence in found.values()) == 3
    assert found[LONG].status == "not in the import"


def test_order_files_and_logs_do_not_matter(split, tmp_path):
    rng = np.random.default_rng(1)
    lines = [line for i in range(160) for k in range(3) for line in record(split, i, k)]
    lines += [f"S-{i}\t{source_of(split, i)}" for i in range(160)]
    lines += [
        "2026-01-01 00:00:00 | INFO | fairseq | loaded 160 examples",
        "",
        "H-",
        "H-x\t1\ta",
    ]
    order = rng.permutation(len(lines))
    half = len(lines) // 2
    one = write(tmp_path / "1", [lines[i] for i in order[:half]])
    two = write(tmp_path / "2", [lines[i] for i in order[half:]])
    found = imported(tmp_path / "store", split, one, two)
    for i in range(160):
        assert spelled(split, found[i]) == [text_of(split, (i + 7 * k) % 160) for k in range(3)]


def test_lines_behind_a_progress_bar_are_read(split, tmp_path):
    bar = "  0%|          | 0/10 [00:00<?, ?it/s]"
    lines = [f"{bar}{'' if i % 2 else chr(13)}{record(split, i)[0]}" for i in range(160)]
    found = imported(tmp_path / "store", split, write(tmp_path / "1", lines))
    assert all(spelled(split, found[i]) == [text_of(split, i)] for i in range(160))


def test_the_same_hypothesis_twice_is_there_once(split, tmp_path):
    lines = [record(split, i)[0] for i in range(160)] + [record(split, 3)[0]]
    found = imported(tmp_path / "store", split, write(tmp_path / "1", lines))
    assert spelled(split, found[3]) == [text_of(split, 3)]


def test_missing_sentences_are_counted(split, tmp_path, caplog):
    path = write(tmp_path / "1", [record(split, i)[0] for i in range(100)])
    found = imported(tmp_path / "store", split, path)
    assert found[120].status == "not in the import" and found[20].status == "translated"
    assert "translations of 100 of the 160 sentences" in caplog.text


def test_a_last_line_that_was_cut_off_is_ignored(split, tmp_path, caplog):
    path = tmp_path / "1"
    path.write_text("\n".join(record(split, i)[0] for i in range(160)))
    found = imported(tmp_path / "store", split, str(path))
    assert found[159].status == "not in the import" and found[158].hypotheses
    assert f"{path}:160 was cut off" in caplog.text


def test_sources_that_look_different(split, tmp_path):
    lines = ["S-0\tsomething else", *(record(split, i)[0] for i in range(160))]
    path = write(tmp_path / "1", lines)
    with pytest.raises(ValueError, match="--ignore-sources"):
        imported(tmp_path / "store", split, path)
    imported(tmp_path / "store", split, path, ignore_sources=True)


def test_hypotheses_without_tokens_or_score(split, tmp_path):
    lines = [record(split, i)[0] for i in range(158)] + ["H-158\t-inf\t", "H-159\t-0.2\t"]
    found = imported(tmp_path / "store", split, write(tmp_path / "1", lines))
    assert {found[i].status for i in (158, 159)} == {"no finished hypothesis"}


class TestRefuses:
    def test_too_few_lines(self, split, tmp_path):
        path = write(tmp_path / "text", [text_of(split, i) for i in range(159)])
        with pytest.raises(
            ValueError, match="has 159 lines, expected 160: 1 for each of the 160"
        ):
            imported(tmp_path / "store", split, path)
        assert not (tmp_path / "store").exists()

    def test_line_where_text_and_split_are_out_of_step(self, split, tmp_path):
        lines = [split.dataset.tgt_dict.string(target) for target in split.dataset.tgt]
        lines.pop(100)
        message = r"has 159 lines, expected 160.* They probably part near line (9|10|11)\d\."
        with pytest.raises(ValueError, match=message):
            imported(tmp_path / "store", split, write(tmp_path / "text", lines))

    def test_sentences_of_another_split(self, split, tmp_path):
        lines = [f"S-{i}\t{source_of(split, (i + 1) % 160)}" for i in range(160)]
        with pytest.raises(ValueError, match="/1:1: sentence 0 is .* there, and .* in 'train'"):
            imported(tmp_path / "store", split, write(tmp_path / "1", lines))

    def test_a_number_that_the_split_does_not_have(self, split, tmp_path):
        path = write(tmp_path / "1", ["H-160\t-0.5\ta"])
        with pytest.raises(ValueError, match="sentence 160, but 'train' .* has 160"):
            imported(tmp_path / "store", split, path)

    @pytest.mark.parametrize("line", ["H-3\tnone\ta", "H-3\t-0.5", "H-3\t"])
    def test_a_hypothesis_without_a_score(self, split, tmp_path, line):
        with pytest.raises(ValueError, match="/1:1: found .*, expected a score, a tab and the"):
            imported(tmp_path / "store", split, write(tmp_path / "1", [line]))

    def test_not_utf8(self, split, tmp_path):
        (tmp_path / "1").write_bytes(b"abc\n\xff\xfe\n")
        with pytest.raises(ValueError, match="/1:2: not UTF-8"):
            imported(tmp_path / "store", split, str(tmp_path / "1"))

    def test_no_hypotheses(self, split, tmp_path):
        path = write(tmp_path / "1", [f"S-0\t{source_of(split, 0)}"])
        with pytest.raises(ValueError, match="no H- lines"):
            imported(tmp_path / "store", split, path)

    def test_two_files_of_text(self, split, tmp_path):
        paths = [write(tmp_path / name, ["a"]) for name in "ab"]
        with pytest.raises(ValueError, match="2 files of plain text: expected one"):
            imported(tmp_path / "store", split, *paths)

    def test_two_kinds_of_files(self, split, tmp_path):
        paths = [write(tmp_path / "a", ["a"]), write(tmp_path / "b", record(split, 0))]
        with pytest.raises(ValueError, match="/a' is read as plain text, .*/b' as fairseq-gen"):
            imported(tmp_path / "store", split, *paths)

    def test_no_such_file(self, split, tmp_path):
        with pytest.raises(FileNotFoundError, match="no file .*nosuch"):
            Translations([str(tmp_path / "nosuch")])

    def test_a_store_of_another_import(self, split, tmp_path):
        for name in "ab":
            path = write(tmp_path / name, [text_of(split, i) + f" {name}" for i in range(160)])
            if name == "a":
                imported(tmp_path / "store", split, path)
        with pytest.raises(ValueError, match="with other settings:\n  import.files"):
            imported(tmp_path / "store", split, path)


@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.data())
def test_fuzzed_output_shifts_no_line(split, tmp_path, data):
    """Hypotheses among arbitrary lines: each is imported for its sentence, or refused."""
    noise = st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            ["", "\t", "H-", "H-1", "D-1\t", "P-3\tx", "S", "\x85", "\u2028", "\r"]
        ),
        st.from_regex(r"[STHDP]-\d{1,4}\t.{0,10}", fullmatch=True),
    )
    ids = data.draw(st.lists(st.integers(0, 159), min_size=1, max_size=12, unique=True))
    lines = [record(split, i)[0] for i in ids]
    lines += [line.replace("\n", " ") for line in data.draw(st.lists(noise, max_size=8))]
    lines = data.draw(st.permutations(lines))
    path = tmp_path / "fuzz"
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
    root = tmp_path / f"store-{len(os.listdir(tmp_path))}"
    try:
        found = imported(root, split, str(path))
    except ValueError:
        assert not root.exists()
        return
    for i in ids:
        assert text_of(split, i) in spelled(split, found[i])


@hypothesis.settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.data())
def test_fuzzed_text_shifts_no_line(split, tmp_path, data):
    """Arbitrary characters in plain text: the line number alone decides the sentence."""
    line = st.text(
        st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8
    )
    changed = data.draw(st.dictionaries(st.integers(0, 159), line, max_size=8))
    lines = [changed.get(i, "") + " " + text_of(split, i) for i in range(160)]
    path = tmp_path / "fuzz"
    path.write_bytes("\n".join(lines).encode())
    root = tmp_path / f"store-{len(os.listdir(tmp_path))}"
    found = imported(root, split, str(path), format="text")
    for i in range(160):
        assert spelled(split, found[i])[0].endswith(text_of(split, i))
