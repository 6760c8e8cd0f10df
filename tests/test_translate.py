"""``fairseq-seqkd translate``: the teacher's own output, whoever drafts."""

import gzip
import io
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import FIXED, LSTM, ROOT, load_split, train
from laws import deviation

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.decoding.speculative import DraftCounts, GreedyRule, SamplingRule
from fairseq_seqkd.models.adapters import eval_mode
from fairseq_seqkd.pseudo.subwords import Subwords
from fairseq_seqkd.teacher import load_teacher
from fairseq_seqkd.teacher.drafting import DraftedTeacher, check_draft
from fairseq_seqkd.translate import TextSources

SHARED = ROOT.parent / "shared" / "multi30k"


@pytest.fixture(scope="module")
def student(word_kd_student):
    """The path of a student's checkpoint."""
    return word_kd_student[0] / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def lstm(data, tmp_path_factory):
    """The path of an LSTM's checkpoint."""
    folder = tmp_path_factory.mktemp("lstm")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", "20"]
    train(data, folder, *loss, model=LSTM)
    return folder / "checkpoint_last.pt"


def greedy_alone(teacher, source, **search):
    """What fairseq's search with a beam of 1 finds."""
    inputs = {"src_tokens": source.unsqueeze(0), "src_lengths": torch.tensor([len(source)])}
    return teacher.generate(inputs, SearchOptions(beam=1, **search))[0][0]


def check_equal(teacher, drafted, sources, **search):
    """All output is the teacher's; returns the `DraftCounts`."""
    counts = DraftCounts()
    for id_, source in enumerate(sources):
        found, expected = drafted(source, id_), greedy_alone(teacher, source, **search)
        assert found.tokens.tolist() == expected["tokens"].tolist(), id_
        assert found.is_cut == (not expected["finished"])
        counts += found.drafts
    return counts


@pytest.fixture(scope="module")
def sources(data, loaded):
    """The sources of all splits that the teacher takes."""
    splits = [load_split(data, name).dataset.src for name in ("test", "valid", "train")]
    return [x for split in splits for x in split if 1 < len(x) <= loaded.max_source_positions()]


@pytest.mark.parametrize("n_drafts, n", [(1, 40), (3, None), (8, 40)])
def test_greedy_output_is_the_teachers(loaded, student, sources, n_drafts, n):
    search = {"max_len_a": 1.5, "max_len_b": 4}
    drafted = DraftedTeacher(
        loaded, load_teacher(str(student)), GreedyRule(), n_drafts, SearchOptions(1, **search)
    )
    counts = check_equal(loaded, drafted, sources[:n], **search)
    assert len(sources) > 190 and 0 < counts.accepted < counts.judged


def test_a_model_that_drafts_for_itself(loaded, sources):
    drafted = DraftedTeacher(loaded, loaded, GreedyRule(), 4)
    counts = check_equal(loaded, drafted, sources[:30])
    assert counts.accepted == counts.drafted and counts.block_efficiency > 3


@pytest.mark.parametrize("kinds", ["both", "lstm drafts", "lstm teaches"])
def test_ensembles_and_other_models(teacher, student, lstm, sources, kinds):
    paths = {
        "both": (f"{teacher}:{student}", f"{student}:{teacher}"),
        "lstm drafts": (teacher, lstm),
        "lstm teaches": (lstm, student),
    }[kinds]
    one, other = (load_teacher(str(path)) for path in paths)
    search = {"max_len_b": 30}
    drafted = DraftedTeacher(one, other, GreedyRule(), 3, SearchOptions(1, **search))
    check_equal(one, drafted, sources[:25], **search)


DRAWS, CLASSES, TEMPERATURE = 2500, 6, 2.0


def next_law(model, source, prefixes, pad):
    """(prefixes, vocab) of the next token, padding left out, in float64."""
    rows = len(prefixes)
    with torch.no_grad(), eval_mode(model):
        output = model(source.expand(rows, -1), torch.full((rows,), len(source)), prefixes)
        lprobs = model.get_normalized_probs(output, log_probs=True)[:, -1].double()
    lprobs[:, pad] = -torch.inf
    return (lprobs / TEMPERATURE).softmax(-1)


def pair_law(model, source, dictionary):
    """(classes, classes + 1) law of the first two tokens; a second one that ends comes last.

    As in fairseq's search, the first token is not the end.
    """
    eos, size, pad = dictionary.eos(), len(dictionary), dictionary.pad()
    starts = torch.full((size, 1), eos)
    first = next_law(model, source, starts[:1], pad)[0]
    first[eos] = 0
    prefixes = torch.cat([starts, torch.arange(size)[:, None]], 1)
    pairs = (first / first.sum())[:, None] * next_law(model, source, prefixes, pad)
    ended = pairs[:, eos : eos + 1].clone()
    pairs[:, eos] = 0
    to_class = torch.eye(CLASSES, dtype=pairs.dtype)[torch.arange(size) % CLASSES]
    return torch.cat([to_class.t() @ pairs @ to_class, to_class.t() @ ended], 1)


def test_samples_have_the_teachers_law(loaded, student, sources):
    dictionary, source = loaded.task.target_dictionary, sources[3]
    draft = load_teacher(str(student))
    search = SearchOptions(1, max_len_b=2)
    drafted = DraftedTeacher(loaded, draft, SamplingRule(TEMPERATURE, seed=2), 2, search)
    counts, drafts = torch.zeros(CLASSES, CLASSES + 1), DraftCounts()
    for id_ in range(DRAWS):
        found = drafted(source, id_)
        first, second, *_ = found.tokens.tolist()
        column = CLASSES if second == dictionary.eos() else second % CLASSES
        counts[first % CLASSES, column] += 1
        drafts += found.drafts
    assert 0.2 < drafts.acceptance_rate < 0.9
    laws = [pair_law(one.models[0], source, dictionary) for one in (loaded, draft)]
    assert deviation(counts.double(), laws[0]) < 4 < 6 < deviation(counts.double(), laws[1])


def run(*arguments):
    cli.main(["translate", *map(str, arguments)])


@pytest.fixture
def flags(teacher, student):
    return ["--teacher-path", teacher, "--draft", student, "--threads", 1, "--cpu"]


def test_a_split_and_its_text(data, text, loaded, flags, capsys):
    """The same lines come out, in their order; stderr says what was accepted."""
    run(data, "--split", "valid", *flags)
    output = capsys.readouterr()
    lines = output.out.splitlines()
    dictionary = loaded.task.target_dictionary
    for source, line in zip(load_split(data, "valid").dataset.src, lines):
        assert line == dictionary.string(greedy_alone(loaded, source)["tokens"][:-1])
    assert "block efficiency" in output.err
    run(text / "valid.src", *flags)
    assert capsys.readouterr().out.splitlines() == lines


def test_lines_in_lines_out(text, flags, capsys, monkeypatch):
    """An empty line and a line end of Windows, on standard input."""
    first, second = (text / "test.src").read_text().splitlines()[:2]
    content = f"{first}\r\n\n{second}".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    run("-", *flags)
    lines = capsys.readouterr().out.split("\n")
    (text.parent / "two.src").write_text(f"{first}\n{second}\n")
    run(text.parent / "two.src", *flags)
    both = capsys.readouterr().out.splitlines()
    assert lines == [both[0], "", both[1], ""]


def test_samples_follow_from_the_seed(data, flags, capsys):
    def sample(*more):
        run(data, "--max-len-b", 12, "--sampling", *flags, *more)
        return capsys.readouterr().out

    once = sample()
    assert once == sample("--seed", 1) and len(once.splitlines()) == 20
    assert once != sample("--seed", 2) and once != sample("--temperature", 0.2)


def test_a_target_that_is_cut_is_told(data, flags, capsys):
    run(data, *flags, "--max-len-b", 2)
    output = capsys.readouterr()
    assert all(len(line.split()) <= 2 for line in output.out.splitlines())
    assert (
        "translations were cut at the longest length (--max-len-a, --max-len-b)" in output.err
    )


@pytest.mark.parametrize(
    "more, message",
    [
        (["--draft-tokens", 0], "--draft-tokens is 0, expected 1 or more"),
        (["--temperature", 0.5], "--temperature needs --sampling"),
        (["--seed", 2], "--seed needs --sampling"),
        (["--sampling", "--temperature", 0], "--temperature is 0.0, expected a number above 0"),
        (["--sampling", "--temperature", "nan"], "--temperature is nan"),
        (["--max-len-b", 0], "--max-len-b is 0, expected 1 or more"),
        (["--threads", 0], "--threads is 0, expected 1 or more"),
        (["--bpe", "sentencepiece"], "--bpe sentencepiece needs its model"),
        (["--split", "x"], "has no binarised 'x' split"),
    ],
)
def test_flags_that_do_not_fit(data, flags, refused, more, message):
    assert message in refused("translate", data, *flags, *more)


def test_input_that_does_not_fit(text, flags, refused, tmp_path):
    lines = text / "test.src"
    assert "--split names a split of a data-bin" in refused(
        "translate", lines, *flags, "--split", "test"
    )
    assert "no file or folder 'nothing'" in refused("translate", "nothing", *flags)
    first = lines.read_text().split("\n")[0]
    (tmp_path / "long").write_text(f"{first}\n{' '.join([first] * 30)}\n")
    message = refused("translate", tmp_path / "long", *flags)
    assert "line 2 of" in message and "take at most 30. Cut the line in two" in message
    with pytest.raises(FileNotFoundError, match="expected a data-bin, a text file, or -"):
        TextSources("nothing")


def test_a_draft_with_other_symbols(text, data, student, teacher, refused, tmp_path):
    """The first symbol that differs is named; on either side."""
    for side in ("src", "tgt"):
        folder = tmp_path / side
        folder.mkdir()
        for path in (student, data / "dict.src.txt", data / "dict.tgt.txt"):
            shutil.copy(path, folder)
        dictionary = folder / f"dict.{side}.txt"
        one, other, *rest = dictionary.read_text().splitlines()
        dictionary.write_text("\n".join([other, one, *rest]) + "\n")
        message = refused(
            *["translate", text / "test.src", "--teacher-path", teacher],
            *["--draft", folder / student.name, "-s", "src", "-t", "tgt"],
        )
        name = {"src": "source", "tgt": "target"}[side]
        assert f"the {name} dictionary of the draft" in message
        symbols = [repr(line.split()[0]) for line in (other, one)]
        assert f"at index 4 the draft has {symbols[0]}, the teacher {symbols[1]}" in message


def test_a_model_that_does_not_generate_token_by_token(loaded):
    encoder = SimpleNamespace(models=[loaded.models[0].encoder], path="x.pt", task=loaded.task)
    for pair in ((loaded, encoder), (encoder, loaded)):
        with pytest.raises(ValueError, match=r"'x.pt', TransformerEncoder\w*, does not gener"):
            check_draft(*pair)


@FIXED  # which wrote the student's checkpoint
@pytest.mark.skipif(not SHARED.exists(), reason="../shared/multi30k is not there")
def test_multi30k(tmp_path, capsys):
    """Forty real lines, cut and joined by their sentencepiece model."""
    with gzip.open(SHARED / "test_2016_flickr.de.gz", "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(40)]
    (tmp_path / "de").write_text("".join(lines))
    paths = ["--teacher-path", SHARED / "teacher-bt.pt", "--draft", SHARED / "student-kd.pt"]
    spm = ["--spm-model", SHARED / "spm.model"]
    run(tmp_path / "de", *paths, *spm)
    output = capsys.readouterr().out.splitlines()
    teacher = load_teacher(str(SHARED / "teacher-bt.pt"))
    dictionary = teacher.task.target_dictionary
    sources = TextSources(str(tmp_path / "de")).sentences(
        teacher.task, Subwords("sentencepiece", str(spm[1]))
    )
    for source, line in zip(sources, output):
        tokens = greedy_alone(teacher, torch.from_numpy(source).long())["tokens"]
        assert dictionary.string(tokens, "sentencepiece") == line
    assert len(output) == 40
