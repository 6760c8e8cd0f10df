"""What tasks add to plain pairs; checked against the batches that the tasks make themselves."""

from argparse import Namespace

import pytest
import torch
from fairseq import options, tasks
from fairseq.data import Dictionary, RoundRobinZipDatasets, data_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_seqkd.compat import complete_task
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.models.language_tokens import (
    LanguageTokens,
    language_tokens_of,
    n_given_symbols,
    tokens_to_add,
)
from fairseq_seqkd.teacher import Teacher

PAIR = ["-s", "src", "-t", "tgt"]
SIMPLE = ["translation_multi_simple_epoch", "--lang-pairs", "src-tgt", "--langs", "src,tgt,cc"]
BOTH = ["--encoder-langtok", "tgt", "--decoder-langtok"]
BART = ["translation_from_pretrained_bart", "--langs", "src,tgt,cc"]
TASKS = {
    "plain": ["translation"],
    "prepended": [*SIMPLE, *BOTH],
    "source only": [*SIMPLE, "--encoder-langtok", "src"],
    "target only": [*SIMPLE, "--decoder-langtok"],
    "replacing": [*SIMPLE, *BOTH, "--lang-tok-replacing-bos-eos"],
    "as in mBART": [*SIMPLE, *BOTH, "--lang-tok-style", "mbart"],
    "multilingual": ["multilingual_translation", "--lang-pairs", "src-tgt", *BOTH],
    "source's own": [
        *["multilingual_translation", "--lang-pairs", "src-tgt", "--encoder-langtok", "src"]
    ],
    "BART": BART,
    "BART with BOS": [*BART, "--prepend-bos"],
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:hydra")
TINY = [
    *["--encoder-layers", "1", "--decoder-layers", "1", "--dropout", "0"],
    *["--encoder-embed-dim", "8", "--encoder-ffn-embed-dim", "8"],
    *["--encoder-attention-heads", "1", "--decoder-attention-heads", "1"],
]
IDS = range(4, 16)


def set_up(data, name, *more):
    """A task as fairseq's commands set it up, and a random model of it."""
    arch = "multilingual_transformer" if "multilingual_tr" in TASKS[name][0] else "transformer"
    flags = [str(data), "--task", *TASKS[name], *PAIR, "--arch", arch, *TINY, *more]
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, flags))
    task = complete_task(tasks.setup_task(cfg.task))
    model = task.build_model(cfg.model)
    return task, getattr(model, "models", {"src-tgt": model})["src-tgt"]


def batch_of(dataset):
    if isinstance(dataset, RoundRobinZipDatasets):
        dataset = dataset.datasets["src-tgt"]
    return dataset.collater([dataset[id_] for id_ in IDS])


@pytest.fixture(params=list(TASKS))
def case(request, data):
    """A task, its model, the batch that the task itself makes, and a plain one."""
    task, model = set_up(data, request.param)
    task.load_dataset("train")
    plain = batch_of(open_split(str(data), "train").dataset)
    return task, model.eval(), batch_of(task.dataset("train")), plain


def test_batches_are_those_of_the_task(case):
    task, _, expected, plain = case
    made = language_tokens_of(task).add_to_inputs(plain["net_input"])
    assert expected["id"].tolist() == plain["id"].tolist()
    for name in ("src_tokens", "src_lengths"):
        assert torch.equal(made[name], expected["net_input"][name])
    # A target's end is not needed: what is behind its EOS predicts nothing of the student's.
    contexts, width = expected["net_input"]["prev_output_tokens"], plain["target"].size(1)
    shift = language_tokens_of(task).shift
    known = plain["target"].ne(task.target_dictionary.pad())
    given = torch.ones(len(known), shift, dtype=torch.bool)
    mask = torch.cat([given, known], dim=1)
    assert torch.equal(made["prev_output_tokens"][mask], contexts[:, : width + shift][mask])


def test_scores_are_those_of_the_model_alone(case, data):
    task, model, own, plain = case
    student = open_split(str(data), "train").task
    tokens = tokens_to_add(task, student)
    n_symbols = len(student.target_dictionary)
    teacher = Teacher([model], task, language_tokens=tokens)
    teacher.check_dictionaries(student)
    found = torch.log_softmax(teacher.logits(plain["net_input"]).at(slice(None)), -1)
    with torch.no_grad():
        logits = model(**own["net_input"])[0]
    shift, width = language_tokens_of(task).shift, plain["target"].size(1)
    alone = torch.log_softmax(logits[:, shift : shift + width, :n_symbols], -1)
    mask = plain["target"].ne(1)
    assert (found.view(*mask.shape, -1)[mask] - alone[mask]).abs().max() < 1e-5

    scorer = teacher.incremental_scorer(
        {name: plain["net_input"][name] for name in ("src_tokens", "src_lengths")}
    )
    contexts = plain["net_input"]["prev_output_tokens"]
    for length in range(1, width + 1):
        lprobs = scorer.next_lprobs(contexts[:, :length])
        here = mask[:, length - 1]
        expected = alone[:, length - 1].clone()
        expected[:, 1] = -float("inf")  # padding is never generated
        expected = expected.log_softmax(-1)
        torch.testing.assert_close(lprobs[here].log_softmax(-1), expected[here])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(4, 90), max_size=5), min_size=1, max_size=4),
    st.booleans(),
    *[st.lists(st.integers(91, 99), max_size=2) for _ in range(4)],
)
def test_any_tokens_around_any_rows(rows, left_pad, start, end, context, target_end):
    pad, eos = 1, 2
    tokens = LanguageTokens(
        *(tuple(start), (eos, *end), (eos, *context), (eos, *target_end)),
        *(frozenset(), frozenset(), pad, eos),
    )

    def collated(sentences):
        rows = [torch.tensor(sentence) for sentence in sentences]
        return data_utils.collate_tokens(rows, pad, left_pad=left_pad)

    sources = collated([*row, eos] for row in rows)
    expected = collated([*start, *row, eos, *end] for row in rows)
    assert torch.equal(tokens.add_to_sources(sources), expected)
    contexts = data_utils.collate_tokens([torch.tensor([eos, *row]) for row in rows], pad)
    expected = [torch.tensor([eos, *context, *row]) for row in rows]
    assert torch.equal(
        tokens.add_to_contexts(contexts), data_utils.collate_tokens(expected, pad)
    )
    for row in rows:
        generated = torch.tensor([*context, *row, eos, *target_end])
        assert tokens.strip(generated).tolist() == [*row, eos]


def test_how_many_symbols_are_given(data):
    given = {name: n_given_symbols(set_up(data, name)[0]) for name in TASKS}
    more = {"prepended", "target only", "as in mBART", "BART with BOS"}
    assert given == {name: 2 if name in more else 1 for name in TASKS}


def test_nothing_is_added_where_the_student_reads_the_same(data):
    teacher, student = (set_up(data, "prepended")[0] for _ in range(2))
    assert tokens_to_add(teacher, student) is None
    assert tokens_to_add(set_up(data, "plain")[0], set_up(data, "plain")[0]) is None
    assert not tokens_to_add(teacher, set_up(data, "plain")[0]).is_plain
    assert not tokens_to_add(teacher).is_plain


@pytest.mark.parametrize(
    "teacher, student, message",
    [
        ("plain", "prepended", "adds language tokens that the teacher, of the task Tra"),
        ("prepended", "replacing", "Train the student with --task translation on one"),
        ("prepended", "as in mBART", "or with the teacher's task and settings"),
    ],
)
def test_students_that_read_something_else_are_refused(data, teacher, student, message):
    with pytest.raises(ValueError, match=message):
        tokens_to_add(set_up(data, teacher)[0], set_up(data, student)[0])


def test_a_task_of_which_nothing_is_known_is_refused(data):
    class Other(tasks.FairseqTask):
        target_dictionary = Dictionary()

    plain = set_up(data, "plain")[0]
    with pytest.raises(ValueError, match="task Other may read and generate more than plain"):
        tokens_to_add(Other(Namespace()), plain)
    with pytest.raises(ValueError, match="the student's task is Other, the teacher's a trans"):
        tokens_to_add(plain, Other(Namespace()))
    assert tokens_to_add(Other(Namespace()), Other(Namespace())) is None


def test_models_that_read_numbers_of_languages_are_refused(data):
    task, _ = set_up(data, "prepended", "--enable-lang-ids")
    with pytest.raises(ValueError, match="--enable-lang-ids: the model reads the numbers"):
        language_tokens_of(task)
