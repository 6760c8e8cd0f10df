"""DSKD: its loss, its projectors in fairseq's hands, two vocabularies, and refusals."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import (
    HALF,
    LSTM,
    RESUMES,
    TINY,
    free_port,
    logged,
    preprocess,
    ranks,
    train,
    without_dropout,
)
from omegaconf import OmegaConf
from processes import PROCESSES
from test_commands import assert_same, parameters
from test_ddp import data_parallel

from fairseq_seqkd.cli import main as cli
from fairseq_seqkd.criterions.dskd import DSKDConfig, DSKDCriterion
from fairseq_seqkd.models.checkpoints import read_checkpoint
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.teacher import load_teacher

WIDE = [*TINY, "--decoder-embed-dim", "24", "--encoder-embed-dim", "24"]
WIDTHS = ["--dskd-student-width", 16, "--dskd-teacher-width", 24]


def projectors_in(checkpoint):
    return read_checkpoint(str(checkpoint))["criterion"]


@pytest.fixture(scope="module")
def wide_teacher(data, tmp_path_factory):
    """The checkpoint of a teacher that is wider than the student."""
    folder = tmp_path_factory.mktemp("wide-teacher")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 20]
    train(data, folder, *loss, "--lr", 0.02, model=WIDE)
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def letters(text, tmp_path_factory):
    """The data-bin of the same text in letters, a vocabulary of its own."""
    folder = tmp_path_factory.mktemp("letters")
    for path in text.glob("*.*"):
        if path.suffix in (".src", ".tgt"):
            lines = path.read_text().split("\n")
            cut = [" ".join(line.replace(" ", "_")[:40]) for line in lines]
            (folder / path.name).write_text("\n".join(cut))
    return preprocess(folder, folder / "data-bin")


@pytest.fixture(scope="module")
def letters_teacher(letters, tmp_path_factory):
    """The checkpoint of a teacher of letters."""
    folder = tmp_path_factory.mktemp("letters-teacher")
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 10]
    train(letters, folder, *loss, "--max-tokens", 900, model=WIDE)
    return folder / "checkpoint_last.pt"


@pytest.fixture
def flags(request, wide_teacher, letters, letters_teacher):
    """The flags of a training with one vocabulary, or with two."""
    of_method = ["--task", "translation", "--criterion", "dskd", *WIDTHS]
    if request.param == "one vocabulary":
        return [*of_method, "--teacher-path", wide_teacher]
    return [*of_method, "--teacher-path", letters_teacher, "--dskd-teacher-pairs", letters]


BOTH = pytest.mark.parametrize("flags", ["one vocabulary", "two"], indirect=True)


@pytest.fixture
def build(task):
    def build(teacher, **values):
        values = {"sentence_avg": False, "teacher_path": str(teacher), **values}
        values = {"dskd_student_width": 16, "dskd_teacher_width": 24, **values}
        torch.manual_seed(1)
        return DSKDCriterion(task, OmegaConf.structured(DSKDConfig(**values))).train()

    return build


# An independent computation in float64 numpy.


def softmax(logits, temperature=1.0):
    logits = logits / temperature
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def kl(first, second):
    return (first * np.log(first / second)).sum(-1)


def array(tensor):
    return tensor.detach().double().numpy()


def linear(layer, values):
    return values @ array(layer.weight).T + array(layer.bias)


def decoder_arrays(model, inputs):
    """(features, head, embeddings) of a model without dropout."""
    with torch.no_grad():
        features = model(**inputs, features_only=True)[0]
    decoder = model.decoder
    head, embeddings = decoder.output_projection.weight, decoder.embed_tokens.weight
    return array(features), array(head), array(embeddings) * decoder.embed_scale


def expected_terms(rows, a, temperature, only_right):
    """The loss from (student features, teacher features in student space, and so on) a row."""
    total = 0.0
    for p_logits, t2s, s2t, q_logits, target in rows:
        n = range(len(target))
        nll, ce = (-np.log(softmax(x)[n, target]).sum() for x in (p_logits, t2s))
        first = kl(softmax(t2s, temperature), softmax(p_logits, temperature))
        if only_right:
            first = first * (t2s.argmax(-1) == target)
        second = kl(softmax(q_logits, temperature), softmax(s2t, temperature))
        total += (1 - a) * nll + a * (first.sum() + ce + second.sum())
    return total


def test_one_vocabulary_equals_float64_computation(build, task, student, wide_teacher, batch):
    criterion = build(wide_teacher, kd_alpha=0.3)
    frozen, inputs, pad = load_teacher(str(wide_teacher)), batch["net_input"], 1
    of_student, head, _ = decoder_arrays(student, inputs)
    of_teacher, teacher_head, _ = decoder_arrays(frozen.models[0], inputs)
    rows = []
    for h_s, h_t, target in zip(of_student, of_teacher, batch["target"]):
        mask = target.ne(pad).numpy()
        h_s, h_t = h_s[mask], h_t[mask]
        t2s = linear(criterion.to_student, h_t) @ head.T
        s2t = linear(criterion.to_teacher, h_s) @ teacher_head.T
        one = h_s @ head.T, t2s, s2t, h_t @ teacher_head.T, target.numpy()[mask]
        rows.append(one)
    loss = criterion(student, batch)[0].item()
    assert loss == pytest.approx(expected_terms(rows, 0.3, 2.0, False), rel=1e-6)


def test_two_vocabularies_equal_float64_computation(
    build, task, student, letters, letters_teacher
):
    dataset = task.dataset("train")
    batch = dataset.collater([dataset[i] for i in (1, 2, 3, 4, 5)])
    criterion = build(letters_teacher, dskd_teacher_pairs=str(letters), kd_alpha=0.3)
    # So that some of the projected teacher's best symbols are the targets.
    models, own_task, _ = load_models(str(letters_teacher))
    model, pad = models[0].eval(), 1
    own_task.cfg.data = str(letters)
    own_task.load_dataset("train")
    pairs = own_task.dataset("train")
    of_student, head, table = decoder_arrays(student, batch["net_input"])
    found = []
    for row, id_ in enumerate(batch["id"].tolist()):
        pair = pairs.collater([pairs[id_]])
        h_t, teacher_head, teacher_table = decoder_arrays(model, pair["net_input"])
        mask = batch["target"][row].ne(pad).numpy()
        contexts = batch["net_input"]["prev_output_tokens"][row].numpy()[mask]
        target, teacher_target = batch["target"][row].numpy()[mask], pair["target"][0].numpy()
        index = (
            np.concatenate([table[contexts], table[target]], -1) / student.decoder.embed_scale
        )
        scale = model.decoder.embed_scale
        teacher_contexts = pair["net_input"]["prev_output_tokens"][0].numpy()
        tables = [teacher_table[x] / scale for x in (teacher_contexts, teacher_target)]
        found.append((of_student[row][mask], index, h_t[0], tables, target))
    index_std = np.concatenate([np.concatenate(t, -1) for _, _, _, t, _ in found]).std(ddof=1)
    h_std = np.concatenate([h for _, _, h, _, _ in found]).std(ddof=1)
    target_std = np.concatenate([t[1] for _, _, _, t, _ in found]).std(ddof=1)
    rows = []
    for h_s, index, h_t, tables, target in found:
        keys = np.concatenate(tables, -1) / index_std
        scores = linear(criterion.query, index) @ keys.T / np.sqrt(2 * 24)
        values = linear(criterion.to_student, h_t / h_std + tables[1] / target_std)
        t2s = softmax(scores) @ values @ head.T
        s2t = softmax(scores.T) @ linear(criterion.to_teacher, h_s) @ teacher_head.T
        rows.append((h_s @ head.T, t2s, s2t, h_t @ teacher_head.T, target))
    loss = criterion(student, batch)[0].item()
    assert loss == pytest.approx(expected_terms(rows, 0.3, 2.0, True), rel=1e-6)


def test_gradients_reach_the_projectors_and_the_student_alone(
    build, task, student, wide_teacher, batch
):
    criterion = build(wide_teacher)
    student.zero_grad()
    criterion(student, batch)[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in criterion.parameters())
    assert all(p.grad is None for p in criterion._teacher[0].models[0].parameters())
    assert student.encoder.layers[0].fc1.weight.grad.abs().sum() > 0
    student.zero_grad()


# In fairseq's hands.


@RESUMES
@BOTH
def test_ten_updates_equal_five_resume_five(data, flags, tmp_path):
    run = [*flags, "--max-update", 10, "--save-interval-updates", 5, "--disable-validation"]
    train(data, tmp_path / "unbroken", *run)
    (half,) = (tmp_path / "unbroken").glob("checkpoint_*_5.pt")
    train(data, tmp_path / "resumed", *run, "--restore-file", half)
    files = [tmp_path / name / "checkpoint_last.pt" for name in ("unbroken", "resumed")]
    assert_same(*map(parameters, files), rtol=0, atol=0)
    assert_same(*map(projectors_in, files), rtol=0, atol=0)
    before, after = projectors_in(half), projectors_in(files[0])
    assert not any(torch.equal(before[name], after[name]) for name in before)


@BOTH
def test_two_ranks_equal_update_freq_two(data, flags, tmp_path):
    run = [*flags, "--dropout", 0, "--max-update", 3, "--disable-validation"]
    train(data, tmp_path / "one", *run, "--update-freq", 2)
    ranks(2, data, tmp_path / "two", *run)
    files = [tmp_path / name / "checkpoint_last.pt" for name in ("one", "two")]
    assert_same(*map(parameters, files), rtol=0, atol=1e-5)
    assert_same(*map(projectors_in, files), rtol=0, atol=1e-5)


def after_three_steps(paths, ranks_of_batches, wrap=lambda module: module):
    """Parameters of student and projectors, each step on the mean loss of some batches."""
    frozen = load_teacher(paths["teacher"])
    task, student = frozen.task, without_dropout(paths["student"])
    task.load_dataset("train")
    dataset, values = task.dataset("train"), {"sentence_avg": False}
    batches = [dataset.collater([dataset[i] for i in ids]) for ids in ([1, 2, 3], [20, 21])]
    config = DSKDConfig(
        teacher_path=paths["teacher"], dskd_student_width=16, dskd_teacher_width=24, **values
    )
    torch.manual_seed(1)
    criterion = DSKDCriterion(task, OmegaConf.structured(config)).train()
    parts = torch.nn.ModuleDict({"student": student, "criterion": criterion})
    model, wrapped = wrap(student), wrap(criterion)
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.001)
    for _ in range(3):
        optimizer.zero_grad()
        for rank in ranks_of_batches:
            (wrapped(model, batches[rank])[0] / len(ranks_of_batches)).backward()
        optimizer.step()
    return {name: p.data for name, p in parts.named_parameters()}


def run_rank(rank, port, paths):
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.save(after_three_steps(paths, [rank], data_parallel), paths["results"] + str(rank))
    dist.barrier()
    dist.destroy_process_group()


def test_torchs_own_wrapper_synchronises_student_and_projectors(
    wide_teacher, word_kd_student, tmp_path
):
    student = word_kd_student[0] / "checkpoint_last.pt"
    paths = {"student": student, "teacher": wide_teacher, "results": tmp_path / "rank"}
    paths, port = {key: str(path) for key, path in paths.items()}, free_port()
    processes = [PROCESSES.Process(target=run_rank, args=(r, port, paths)) for r in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    expected = after_three_steps(paths, [0, 1])
    for rank in range(2):
        ours = torch.load(paths["results"] + str(rank))
        assert_same(ours, expected, rtol=0, atol=1e-5)


@HALF
@BOTH
def test_half_precision(data, flags, tmp_path):
    mode = ["--fp16", "--fp16-no-flatten-grads", "--max-update", 2]
    values = logged(train(data, tmp_path, *flags, *mode), "train")[-1]
    assert 0 < float(values["train_loss"]) < 100 and 0 < float(values["train_s2t_kl"]) < 100


def test_a_training_begins_with_a_student_of_another_criterion_and_is_exported(
    data, wide_teacher, word_kd_student, tmp_path
):
    """Projectors begin anew; a second training has them, and the exported student has none."""
    run = ["--task", "translation", "--criterion", "dskd", "--teacher-path", wide_teacher]
    run += [*WIDTHS, "--max-update", 1]
    first = word_kd_student[0] / "checkpoint_last.pt"
    log = train(data, tmp_path, *run, "--finetune-from-model", first)
    assert "has no projectors of dskd: they begin anew" in log
    assert float(logged(log, "valid")[-1]["valid_t2s_kl"]) == 0
    saved, out = tmp_path / "checkpoint_last.pt", tmp_path / "student.pt"
    assert set(projectors_in(saved)) == {
        f"{name}.{part}" for name in ("to_student", "to_teacher") for part in ("weight", "bias")
    }
    cli.main(["export", str(saved), "--to", "fairseq", "--out", str(out)])
    exported = read_checkpoint(str(out))
    assert exported["criterion"] is None
    assert_same(parameters(out), parameters(saved), rtol=0, atol=0)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--dskd-student-width", 8], "the student's output layer reads 16 numbers"),
        (["--dskd-teacher-width", 16], "the teacher's output layer reads 24 numbers"),
        (["--dskd-teacher-width", 0], "--dskd-teacher-width is 0, expected the width of"),
        (["--kd-alpha", 0], "--kd-alpha is 0.0, expected a number above 0"),
    ],
)
def test_refused(data, wide_teacher, tmp_path, more, message):
    run = ["--task", "translation", "--criterion", "dskd", "--teacher-path", wide_teacher]
    output = train(data, tmp_path, *run, *WIDTHS, "--max-update", 1, *more, fails=True)
    assert message in output


def test_an_lstm_is_refused(data, wide_teacher, tmp_path):
    run = ["--task", "translation", "--criterion", "dskd", "--teacher-path", wide_teacher]
    more = [*WIDTHS, "--max-update", 1]
    output = train(data, tmp_path, *run, *more, fails=True, model=LSTM)
    assert "the student, LSTMModel, has no output layer" in output


def test_other_numbers_of_pairs_are_refused(data, halves, wide_teacher, tmp_path):
    run = ["--task", "translation", "--criterion", "dskd", "--teacher-path", wide_teacher]
    more = [*WIDTHS, "--max-update", 1, "--dskd-teacher-pairs", halves[0]]
    output = train(data, tmp_path, *run, *more, fails=True)
    assert "has 70 pairs, and the student's 160" in output
