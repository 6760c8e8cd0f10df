"""Teachers that read another source than the student, or none: ``--teacher-source``."""

import copy
import shutil

import pytest
import torch
from conftest import LONG, S2T, TINY, batch_of, logged, train, without_dropout
from omegaconf import OmegaConf
from processes import fairseq

from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.prefixes import PREFIXES, TrainingStep
from fairseq_seqkd.teacher import FolderSource, load_teacher

TRAINED = {"finetune_from_model": "student.pt", "restore_file": "checkpoint_last.pt"}
COMMON = {**TRAINED, "sentence_avg": False, "seed": 1, "max_update": 10, "save_dir": "."}
STEP = TrainingStep(seed=1, update=7, progress=0.5)
POLICIES = {
    "data": {},
    "student": {"kd_schedule": "constant", "kd_beta": 0.5, "kd_max_len_a": 0.2},
    "interleaved": {"kd_accept_topk": 5, "kd_max_len_a": 0.2},
    "switch": {"kd_switch_threshold": 0.05, "kd_max_len_a": 0.2},
}
CASES = ["clean text", "transcript", "language model", "language model with BOS"]


def task_of(checkpoint):
    """A student's task with its splits loaded, and its model without dropout."""
    task = load_models(str(checkpoint))[1]
    for name in ("train", "valid"):
        task.load_dataset(name)
    return task, without_dropout(checkpoint)


@pytest.fixture(scope="module")
def students(noisy_student, speech_teacher):
    """{what a student reads: (task, model)}"""
    return {"noisy": task_of(noisy_student), "speech": task_of(speech_teacher)}


@pytest.fixture(scope="module")
def cases(request, data, transcripts, students):
    """{case: (task, student, the teacher's checkpoint, --teacher-source)}"""
    fixture = request.getfixturevalue
    models = fixture("language_models")
    return {
        "clean text": (*students["noisy"], fixture("teacher"), str(data)),
        "transcript": (*students["speech"], fixture("text_teacher"), str(transcripts)),
        "language model": (*students["speech"], models[False], "none"),
        "language model with BOS": (*students["speech"], models[True], "none"),
    }


def alone(checkpoint, source, split, id_, context, vocab):
    """(length, vocab) log-probabilities of the teacher's model, run by itself on one sentence.

    Its data set is loaded by fairseq.
    """
    (model,), task, _ = load_models(str(checkpoint))
    model.eval()
    context = context.unsqueeze(0)
    if source == "none":
        bos = [task.target_dictionary.bos()] * bool(task.args.add_bos_token)
        inputs = {"src_tokens": torch.cat([torch.tensor([bos]).long(), context], 1)}
    else:
        task.cfg.data = source
        task.load_dataset(split)
        tokens = task.dataset(split)[id_]["source"].unsqueeze(0)
        lengths = torch.tensor([tokens.size(1)])
        inputs = {"src_tokens": tokens, "src_lengths": lengths, "prev_output_tokens": context}
    with torch.no_grad():
        lprobs = model.get_normalized_probs(model(**inputs), log_probs=True)[0]
    return lprobs[-context.size(1) :, :vocab]


def check_scores(teacher, case, sample, split):
    """Compare the teacher's scores of a batch with those of the teacher run alone, to 1e-5."""
    task, _, checkpoint, source = case
    pad, contexts = task.target_dictionary.pad(), sample["net_input"]["prev_output_tokens"]
    logits = teacher.logits(teacher.inputs_of(sample, split == "train")).at(slice(None))
    lprobs = logits.log_softmax(-1).view(*contexts.shape, -1)
    for id_, context, found in zip(sample["id"].tolist(), contexts, lprobs):
        n = int(context.ne(pad).sum())
        how = id_, context[:n], len(task.target_dictionary)
        expected = alone(checkpoint, source, split, *how)
        torch.testing.assert_close(found[:n], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_teacher_alone(cases, name, policy):
    """Of all rows, whoever generated their prefixes."""
    case = task, student, checkpoint, source = cases[name]
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    teacher.check_dictionaries(task)
    sample = batch_of(task, [3, 20, 7, 11, 0])
    if policy != "data":
        generate = PREFIXES.resolve(policy, POLICIES[policy])()
        sample = generate(sample, student, teacher, task, STEP).sample
        assert "gold" in sample
    check_scores(teacher, case, sample, "train")
    # Token by token, as policies ask for them.
    scorer = teacher.incremental_scorer(teacher.inputs_of(sample))
    contexts = sample["net_input"]["prev_output_tokens"]
    expected = teacher.logits(teacher.inputs_of(sample)).at(slice(None))
    expected = expected.view(*contexts.shape, -1).log_softmax(-1)[:, 1]
    found = scorer.next_lprobs(contexts[:, :2])
    finite = found.isfinite() & contexts[:, 1:2].ne(task.target_dictionary.pad())
    torch.testing.assert_close(found[finite], expected[finite], rtol=0, atol=1e-5)


def criterion_of(case, **values):
    task, _, checkpoint, source = case
    given = {"teacher_path": str(checkpoint), "teacher_source": source, **values}
    config = OmegaConf.structured(DistillConfig(**{**COMMON, **given}))
    return DistillCriterion(task, config)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_the_criterion_learns_from_that_source(cases, name, policy):
    """Training and validation read the sources of their own splits."""
    case = task, student, *_ = cases[name]
    criterion = criterion_of(case, kd_prefixes=policy, kd_alpha=1.0, **POLICIES[policy])
    torch.manual_seed(1 + 7)  # update 7
    loss, _, log = criterion.train()(student, batch_of(task, [3, 20, 7]))
    loss.backward()
    assert loss > 0 and log["n_agree"] <= log["ntokens"]
    sample = batch_of(task, [3, 11, 0], "valid")
    teacher = criterion.get_teacher(student, "cpu")
    check_scores(teacher, case, sample, "valid")
    with torch.no_grad():
        loss, _, _ = criterion.eval()(student, sample)
    lprobs = student(**sample["net_input"])[0].log_softmax(-1)
    target_mask = sample["target"].ne(task.target_dictionary.pad())
    inputs, shape = teacher.inputs_of(sample, training=False), (*sample["target"].shape, -1)
    teacher_lprobs = teacher.logits(inputs).at(slice(None)).log_softmax(-1).view(shape)
    expected = (teacher_lprobs.exp() * (teacher_lprobs - lprobs)).sum(-1)[target_mask].sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_of_several_validation_sets_the_targets_tell_which_one(cases, data):
    """fairseq does not say of which split a batch is."""
    task, _, checkpoint, _ = cases["clean text"]
    task = copy.copy(task)
    task.datasets = dict(task.datasets)
    task.load_dataset("test")
    teacher = load_teacher(str(checkpoint), student_task=task, source=str(data))
    pad = teacher.task.source_dictionary.pad()
    for split in ("valid", "test"):
        sample = batch_of(task, [4, 0, 2], split)
        found = teacher.inputs_of(sample, training=False)["src_tokens"]
        sources = teacher.source.sources(split, None).src
        for id_, tokens in zip(sample["id"].tolist(), found):
            assert torch.equal(tokens[tokens.ne(pad)], sources[id_])


def test_a_batch_of_the_validation_that_training_repeats(cases, monkeypatch):
    """A data-parallel process without batches repeats one, and fairseq ignores its loss."""
    task, _, checkpoint, source = cases["clean text"]
    task.load_dataset("test")
    monkeypatch.setattr(task.cfg, "train_subset", "test")  # 20 sentences; valid has 24
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    sample = batch_of(task, [22, 0], "valid")
    found = teacher.inputs_of(sample, training=True)["src_tokens"]
    assert torch.equal(found, teacher.inputs_of(sample, training=False)["src_tokens"])
    with pytest.raises(ValueError, match="sentence 500 is in no split .*train, valid, test"):
        teacher.inputs_of({**sample, "id": torch.tensor([500, 0])})


def test_padding_follows_the_teacher(cases):
    task, _, checkpoint, source = cases["clean text"]
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    pad, sample = teacher.task.source_dictionary.pad(), batch_of(task, range(11, 40))
    assert teacher.inputs_of(sample)["src_tokens"][:, 0].eq(pad).any()
    teacher.task.cfg.left_pad_source = False
    right = FolderSource(source, teacher.task, task, 30).inputs(sample)["src_tokens"]
    assert not right[:, 0].eq(pad).any() and right[:, -1].eq(pad).any()


@pytest.mark.parametrize("lines", [25, 31])
def test_other_numbers_of_sentences(cases, transcripts, speech, tmp_path, lines):
    task, _, checkpoint, _ = cases["transcript"]
    for split in ("train", "valid"):
        for side in ("src", "tgt"):
            found = (speech.parent / "text" / f"{split}.{side}").read_text().splitlines()
            kept = [*found, *found][:lines] if split == "train" else found
            (tmp_path / f"{split}.{side}").write_text("\n".join(kept) + "\n")
    dictionaries = ["--srcdict", transcripts / "dict.src.txt", "--tgtdict", speech / "dict.txt"]
    pair = ["--source-lang", "src", "--target-lang", "tgt", "--destdir", tmp_path / "data-bin"]
    splits = ["--trainpref", tmp_path / "train", "--validpref", tmp_path / "valid"]
    fairseq("preprocess", *pair, *splits, *dictionaries)
    lacking = {25: "25, .* the data-bin's lacks", 31: "30, .* the student's lacks"}[lines]
    message = f"split 'train' has {lines} sentences, and the student's 30.*Sentence {lacking}"
    with pytest.raises(ValueError, match=message):
        load_teacher(str(checkpoint), student_task=task, source=str(tmp_path / "data-bin"))


MISFITS = {
    "no folder": ("clean text", "nowhere", FileNotFoundError, "there is no folder 'nowhere'"),
    "no split": (
        "clean text",
        "without valid",
        FileNotFoundError,
        "no binarised 'valid' split",
    ),
    "dictionary": ("clean text", "other dictionary", ValueError, "index 6 the teacher has '"),
    "two folders": ("clean text", "two", ValueError, "expected one data-bin, in which"),
    "reads a source": ("transcript", "none", ValueError, "none: the teacher, Transf.* no lang"),
    "reads none": ("language model", "data", ValueError, "LanguageModel, reads no source"),
    "not said": ("language model", None, ValueError, "--teacher-source none lets it score"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused(cases, data, tmp_path, monkeypatch, name):
    case, source, error, message = MISFITS[name]
    task, _, checkpoint, _ = cases[case]
    if source in ("data", "two", "without valid", "other dictionary"):
        folder = shutil.copytree(data, tmp_path / "data-bin")
        for path in folder.glob("valid.*") if source == "without valid" else ():
            path.unlink()
        if source == "other dictionary":
            lines = (folder / "dict.src.txt").read_text().splitlines(True)
            lines[2], lines[3] = lines[3], lines[2]
            (folder / "dict.src.txt").write_text("".join(lines))
        if source == "two":
            monkeypatch.setattr(task.cfg, "data", f"{data}:{data}")
        source = str(folder)
    with pytest.raises(error, match=message):
        load_teacher(str(checkpoint), student_task=task, source=source)


def test_a_source_that_is_too_long_for_the_teacher(cases, teacher):
    """The teacher takes 30 tokens; the student may read less of the sentence."""
    task, _, checkpoint, source = cases["clean text"]
    teacher = load_teacher(str(checkpoint), student_task=task, source=source)
    with pytest.raises(ValueError, match=f"source of sentence {LONG} has .* takes 30"):
        teacher.inputs_of(batch_of(task, [3, LONG]))


def test_the_dictionary_of_the_folder_serves_if_no_other_is_found(
    cases, data, teacher, tmp_path, caplog
):
    task, _, _, source = cases["clean text"]
    (tmp_path / "alone").mkdir()
    state = torch.load(teacher, map_location="cpu")
    state["cfg"]["task"]["data"] = str(tmp_path / "gone")
    torch.save(state, tmp_path / "alone" / "teacher.pt")
    found = load_teacher(
        str(tmp_path / "alone" / "teacher.pt"), student_task=task, source=source
    )
    assert found.knows_dictionary and "only the sizes" not in caplog.text


def test_targets_with_language_tokens(cases, monkeypatch):
    task, _, checkpoint, source = cases["transcript"]
    monkeypatch.setitem(task.data_cfg.config, "prepend_tgt_lang_tag", True)
    with pytest.raises(ValueError, match="SpeechToTextTask have language tokens.*prepend_tgt"):
        load_teacher(str(checkpoint), student_task=task, source=source)


COMMANDS = {
    "clean text": ["--task", "translation", "--criterion", "word_kd"],
    "transcript": [
        *["--task", "speech_to_text", "--criterion", "imit_kd", "--kd-max-len-a", 0.2],
        *["--kd-schedule", "constant", "--kd-beta", 0.5],
    ],
    "language model": ["--task", "speech_to_text", "--criterion", "word_kd"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_as_a_command(cases, noisy, speech, tmp_path, name):
    _, _, checkpoint, source = cases[name]
    data, model = (noisy, TINY) if name == "clean text" else (speech, S2T)
    flags = [*COMMANDS[name], "--teacher-path", checkpoint, "--teacher-source", source]
    flags += ["--max-tokens", 2000, "--max-update", 3]
    if name == "clean text":  # its teacher takes no longer sources
        flags += ["--max-source-positions", 30]
    output = train(data, tmp_path, *flags, model=model)
    assert len(logged(output, "train_inner")) == 3
    assert all(float(line["valid_kd_loss"]) > 0 for line in logged(output, "valid"))
