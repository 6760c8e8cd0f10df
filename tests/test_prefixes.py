import math

import pytest
import torch
from fairseq.tasks.translation import TranslationTask
from laws import deviation

from fairseq_seqkd.decoding.sampling import SentenceStreams, random_stream
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.models.adapters import eval_mode
from fairseq_seqkd.models.language_tokens import given_symbols
from fairseq_seqkd.models.loading import load_models
from fairseq_seqkd.prefixes import PREFIXES, TrainingStep
from fairseq_seqkd.teacher import Teacher

STEP = TrainingStep(seed=1, update=7, progress=0.5)


@pytest.fixture(scope="module")
def dataset(loaded):
    loaded.task.load_dataset("valid")
    return loaded.task.dataset("valid")


@pytest.fixture(scope="module")
def batch(dataset):
    return dataset.collater([dataset[i] for i in range(12)])


@pytest.fixture(scope="module")
def student(word_kd_student):
    folder, _ = word_kd_student
    return load_models(str(folder / "checkpoint_last.pt"))[0][0].train()


@pytest.fixture
def settle(student, loaded):
    """settle(batch, prefixes, step, settings...) -> PrefixedBatch."""

    def settle(batch, name="student", step=STEP, model=student, **settings):
        settings = {"kd_schedule": "constant", "kd_max_len_b": 6, **settings}
        if name != "student":
            del settings["kd_schedule"]
        policy = PREFIXES.resolve(name, settings)()
        return policy(batch, model, loaded, loaded.task, step)

    return settle


def rows(sample, loaded):
    """{sentence id: (context, target)} without padding."""
    pad = loaded.task.target_dictionary.pad()
    columns = sample["net_input"]["prev_output_tokens"], sample["target"]
    parts = [[row[row.ne(pad)].tolist() for row in column] for column in columns]
    return dict(zip(sample["id"].tolist(), zip(*parts)))


def same(one, other):
    """Whether two batches are equal."""
    inputs = one["net_input"], other["net_input"]
    return torch.equal(one["target"], other["target"]) and all(
        torch.equal(inputs[0][key], inputs[1][key]) for key in inputs[0]
    )


def test_data_has_no_policy():
    assert PREFIXES.resolve("data", {}) is None


def test_beta_one_changes_nothing(settle, batch):
    settled = settle(batch, kd_beta=1.0)
    assert settled.sample is batch and not settled.student_rows_mask.any()
    nothing = {"n_student_rows": 0, "n_student_tokens": 0, "n_cut_rows": 0}
    assert settled.log == {**nothing, "beta": 12.0}


def test_beta_zero_generates_every_row(settle, batch, loaded):
    settled = settle(batch, kd_beta=0.0)
    assert settled.student_rows_mask.all() and settled.log["n_student_rows"] == 12
    generated = rows(settled.sample, loaded)
    assert settled.sample["ntokens"] == sum(len(target) for _, target in generated.values())
    assert settled.log["n_student_tokens"] == settled.sample["ntokens"]
    assert generated != rows(batch, loaded)


@pytest.mark.parametrize("max_len_b", [1, 4, 49])
def test_rows_that_their_limit_cuts_are_counted(settle, batch, loaded, max_len_b):
    limits = {"kd_max_len_a": 0.0, "kd_max_len_b": max_len_b}
    settled = settle(batch, model=loaded.models[0], kd_beta=0.0, **limits)
    eos = loaded.task.target_dictionary.eos()
    generated = rows(settled.sample, loaded).values()
    cut = sum(target[-1] != eos for _, target in generated)
    assert settled.log["n_cut_rows"] == cut and (cut > 0 if max_len_b < 49 else cut < 12)


def test_a_generated_row_counts_from_the_first_position_to_the_eos(settle, batch, loaded):
    """The context begins with EOS, and that position counts; none after the last EOS does."""
    model = loaded.models[0]
    settled = settle(batch, model=model, kd_beta=0.0, kd_max_len_b=49)
    found = loaded.generate(batch["net_input"], SearchOptions(beam=1))
    eos = loaded.task.target_dictionary.eos()
    generated = rows(settled.sample, loaded)
    compared = 0
    for id_, hypotheses in zip(batch["id"].tolist(), found):
        tokens = hypotheses[0]["tokens"].tolist()
        # fairseq's search never ends a hypothesis at once; a rollout may.
        if generated[id_][1] != [eos] and len(tokens) < 40:
            assert generated[id_] == ([eos, *tokens[:-1]], tokens)
            compared += 1
    assert compared > 5


def test_rows_that_keep_their_data_are_untouched(settle, batch, loaded):
    settled = settle(batch, kd_beta=0.5)
    before, after = rows(batch, loaded), rows(settled.sample, loaded)
    kept = batch["id"][~settled.student_rows_mask].tolist()
    assert 0 < len(kept) < 12
    assert all(before[id_] == after[id_] for id_ in kept)
    assert same({**settled.sample["gold"], "net_input": {}}, {**batch, "net_input": {}})
    assert torch.equal(
        settled.sample["gold"]["prev_output_tokens"], batch["net_input"]["prev_output_tokens"]
    )


def test_gold_beside_pseudo_targets_stays(settle, batch):
    gold = {"target": batch["target"] + 1, "prev_output_tokens": batch["target"]}
    assert settle({**batch, "gold": gold}, kd_beta=0.0).sample["gold"] is gold


def test_no_column_of_padding_is_left(settle, batch, loaded):
    pad = loaded.task.target_dictionary.pad()
    settled = settle(batch, kd_beta=0.0, kd_max_len_a=0.0, kd_max_len_b=2)
    assert settled.sample["target"].size(1) <= 2
    assert settled.sample["target"].ne(pad).any(0).all()


@pytest.mark.parametrize("name", ["student", "interleaved", "switch"])
@pytest.mark.parametrize("topk", [1, 3, -1])
def test_a_sentence_is_generated_alike_in_any_batch(settle, dataset, batch, loaded, name, topk):
    beta = {"kd_beta": 0.5} if name == "student" else {}
    together = rows(settle(batch, name, kd_sampling_topk=topk, **beta).sample, loaded)
    for ids in ([5], [11, 0, 3], [2, 1]):
        part = dataset.collater([dataset[i] for i in ids])
        settled = settle(part, name, kd_sampling_topk=topk, **beta)
        for id_, row in rows(settled.sample, loaded).items():
            assert row == together[id_]


@pytest.mark.parametrize("other", [TrainingStep(2, 7, 0.5), TrainingStep(1, 8, 0.5)])
def test_another_seed_or_update_draws_other_samples(settle, batch, other):
    one, two = (
        settle(batch, step=step, kd_beta=0.0, kd_sampling_topk=-1) for step in (STEP, other)
    )
    assert not same(one.sample, two.sample)


def test_coins_fall_as_often_as_beta_says(settle, student, loaded, batch):
    selected = 0
    for update in range(200):
        step = STEP._replace(update=update)
        policy = PREFIXES.resolve("student", {"kd_schedule": "constant", "kd_beta": 0.7})()
        mask, beta = policy.row_rule.select(batch["id"], step)
        assert beta == 0.7
        selected += mask.sum().item()
    # 2400 throws: 0.3 with a standard deviation of 0.0094
    assert selected / 2400 == pytest.approx(0.3, abs=0.04)


def test_the_coin_of_a_batch_decides_for_all_its_rows(settle, batch):
    settings = {"kd_coin": "batch", "kd_beta": 0.5}
    seen = set()
    for update in range(20):
        mask = settle(batch, step=STEP._replace(update=update), **settings).student_rows_mask
        assert mask.all() or not mask.any()
        seen.add(bool(mask.all()))
    assert seen == {True, False}


def test_validation_generates_nothing_and_logs_the_same_keys(settle, batch):
    for name in ("student", "interleaved", "switch"):
        training, validation = (settle(batch, name, step) for step in (STEP, None))
        assert validation.sample is batch and not validation.student_rows_mask.any()
        assert validation.log.keys() == training.log.keys()


@pytest.mark.parametrize("name", ["student", "interleaved", "switch"])
def test_the_students_dropout_and_random_stream_stay(settle, student, batch, name):
    state = torch.get_rng_state()
    settle(batch, name, kd_sampling_topk=-1, **({"kd_beta": 0.0} if name == "student" else {}))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in student.modules())


@pytest.mark.parametrize("name", ["student", "interleaved", "switch"])
def test_generating_builds_no_graph(settle, student, batch, name, monkeypatch):
    """Neither encoder nor decoder outputs have a gradient, though the student's weights do."""
    outputs = []

    def record(module, inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    layers = student.encoder.layers[0], student.decoder.layers[0]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        settle(batch, name, **({"kd_beta": 0.0} if name == "student" else {}))
    finally:
        for hook in hooks:
            hook.remove()
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert len(outputs) > 2
    assert not any(output.requires_grad for output in outputs)


# The law of the first two tokens of one sentence, in classes of tokens.

DRAWS, CLASSES, SENTENCE = 4000, 6, 3


def sampled_pairs(settle, dataset, name, model, **settings):
    """(classes, classes + 1) counts of generated pairs; last column: nothing followed."""
    many = dataset.collater([{**dataset[SENTENCE], "id": i} for i in range(DRAWS)])
    beta = {"kd_beta": 0.0} if name == "student" else {}
    settings = {"kd_sampling_topk": -1, **beta, **settings}
    settled = settle(many, name, model=model, kd_max_len_a=0.0, kd_max_len_b=2, **settings)
    first, second = settled.sample["target"].t()
    second = torch.where(second.eq(dataset.tgt_dict.pad()), CLASSES, second % CLASSES)
    pairs = (first % CLASSES) * (CLASSES + 1) + second
    return pairs.bincount(minlength=CLASSES * (CLASSES + 1)).view(CLASSES, CLASSES + 1)


@torch.no_grad()
def next_probs(model, dataset, prefixes):
    """(prefixes, vocab) of the next token, padding left out, in float64."""
    source = dataset[SENTENCE]["source"].expand(len(prefixes), -1)
    lengths = torch.full((len(prefixes),), source.size(1))
    with eval_mode(model):
        output = model(source, lengths, prefixes)
        probs = model.get_normalized_probs(output, log_probs=False)[:, -1].double()
    probs[:, dataset.tgt_dict.pad()] = 0
    return probs / probs.sum(-1, keepdim=True)


def pair_law(student, teacher, dataset, k):
    """The law of pairs: the student's token if the teacher has it among its k best, else the
    teacher's; in the shape of `sampled_pairs`."""

    def following(prefixes):
        p, q = (next_probs(model, dataset, prefixes) for model in (student, teacher))
        top = q.topk(min(k, q.size(-1))).indices
        accepted = torch.zeros_like(p).scatter(-1, top, p.gather(-1, top))
        return accepted + (1 - accepted.sum(-1, keepdim=True)) * q

    eos, size = dataset.tgt_dict.eos(), len(dataset.tgt_dict)
    starts = torch.full((size, 1), eos)
    first = following(starts[:1])[0]
    pairs = first[:, None] * following(torch.cat([starts, torch.arange(size)[:, None]], 1))
    ended = torch.zeros(size, 1, dtype=pairs.dtype)
    ended[eos], pairs[eos] = first[eos], 0
    to_class = torch.eye(CLASSES, dtype=pairs.dtype)[torch.arange(size) % CLASSES]
    return torch.cat([to_class.t() @ pairs @ to_class, to_class.t() @ ended], 1)


@pytest.fixture
def law(dataset, student, teacher):
    """law(k): of pairs, where the teacher accepts what is among its k best."""
    model = load_models(str(teacher))[0][0]
    return lambda k: pair_law(student, model, dataset, k)


ALL = 10**6


def test_the_students_samples_have_the_students_law(settle, dataset, student, law):
    counts = sampled_pairs(settle, dataset, "student", student)
    assert deviation(counts, law(ALL)) < 4
    assert deviation(counts, law(0)) > 20


def test_acceptance_of_all_is_the_student(settle, dataset, student, law):
    counts = sampled_pairs(settle, dataset, "interleaved", student, kd_accept_topk=ALL)
    assert deviation(counts, law(ALL)) < 4
    # The same draws, even: the student's do not depend on who else takes part.
    alone = sampled_pairs(settle, dataset, "student", student)
    assert torch.equal(counts, alone)


def test_acceptance_of_none_is_the_teacher(settle, dataset, student, law):
    counts = sampled_pairs(settle, dataset, "interleaved", student, kd_accept_topk=0)
    assert deviation(counts, law(0)) < 4
    assert deviation(counts, law(ALL)) > 20


def test_acceptance_of_some_is_between(settle, dataset, student, law):
    counts = sampled_pairs(settle, dataset, "interleaved", student, kd_accept_topk=3)
    assert deviation(counts, law(3)) < 4


@pytest.mark.parametrize("accept", range(5))
def test_tokens_among_the_teachers_k_best_are_accepted(accept):
    """Four rows, in which the student is sure of the teacher's 1st, 2nd, 3rd and 4th best."""
    teachers = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]).log().expand(4, -1)
    students = torch.eye(5)[:4].log()
    rule = PREFIXES.resolve("interleaved", {"kd_accept_topk": accept})().token_rule
    log = dict.fromkeys(rule.counters, 0)
    draws = SentenceStreams(range(4), STEP.seed, STEP.update)
    tokens = rule.next_tokens(range(4), draws, log, 0, students, teachers)
    assert log == {"n_accepted": min(accept, 4), "n_proposed": 4}
    assert tokens[:accept].tolist() == list(range(min(accept, 4)))


def switched(position, students, teachers, **settings):
    """Which of the student's tokens stand at a position, with --kd-prefixes switch."""
    rule = PREFIXES.resolve("switch", {"kd_sampling_topk": 1, **settings})().token_rule
    log = dict.fromkeys(rule.counters, 0)
    draws = SentenceStreams(range(len(students)), STEP.seed, STEP.update)
    tokens = rule.next_tokens(range(len(students)), draws, log, position, students, teachers)
    assert log["n_proposed"] == len(students)
    return log["n_accepted"], tokens


@pytest.mark.parametrize("position", [0, 3, 40])
def test_the_teachers_token_stands_where_the_two_differ_too_much(position):
    torch.manual_seed(1)
    p, q = torch.randn(2, 200, 9, dtype=torch.float64).softmax(-1)
    m = (p + q) / 2
    distance = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
    stands = distance <= 0.2 * math.exp(-0.05 * position)
    accepted, tokens = switched(
        position, p.log(), q.log(), kd_switch_threshold=0.2, kd_switch_decay=0.05
    )
    assert accepted == stands.sum()
    assert torch.equal(tokens[stands], p[stands].argmax(-1))
    assert position == 40 or 20 < accepted < 180


def test_a_switch_that_never_or_always_happens():
    p, q = torch.randn(2, 50, 9).log_softmax(-1)
    assert switched(0, p, q, kd_switch_threshold=0.7)[0] == 50  # the divergence is below log 2
    assert switched(0, p, q, kd_switch_threshold=0.0)[0] == 0
    assert switched(9, p, p, kd_switch_threshold=1e-5)[0] == 50


def test_switched_rows_train(settle, batch):
    log = settle(batch, "switch").log
    assert 0 < log["n_accepted"] < log["n_proposed"]


def test_coin_student_and_teacher_draw_other_numbers():
    drawn = {random_stream(1, 7, 3, purpose).random() for purpose in range(4)}
    assert len(drawn) == 4


def test_the_accepted_are_counted(settle, batch):
    all_, none = (settle(batch, "interleaved", kd_accept_topk=k).log for k in (ALL, 0))
    assert all_["n_accepted"] == all_["n_proposed"] == all_["n_student_tokens"]
    assert none["n_accepted"] == 0 and none["n_proposed"] == none["n_student_tokens"]


def test_models_without_probabilities_are_refused(settle, batch, teacher, student, loaded):
    broken = load_models(str(teacher))[0][0]
    torch.nn.init.constant_(broken.decoder.embed_tokens.weight, math.nan)
    for topk in (1, 3, -1):
        with pytest.raises(ValueError, match=r"student.*NaN.*sentence \d+ .*update 7.*--lr"):
            settle(batch, model=broken, kd_beta=0.0, kd_sampling_topk=topk)
    with pytest.raises(ValueError, match="the teacher has no probabilities"):
        frozen = Teacher([broken], loaded.task)
        settings = {"kd_max_len_b": 6}
        interleaved = PREFIXES.resolve("interleaved", settings)()
        interleaved(batch, student, frozen, loaded.task, STEP)


class AnotherTask(TranslationTask):
    """A task of which nothing is known."""


def test_targets_that_begin_otherwise_are_refused_in_a_task_of_another(settle, batch, loaded):
    contexts = batch["net_input"]["prev_output_tokens"].clone()
    contexts[:, 0] = 7  # as a language's id does in multilingual tasks
    begun = {**batch, "net_input": {**batch["net_input"], "prev_output_tokens": contexts}}
    task = AnotherTask(loaded.task.cfg, loaded.task.src_dict, loaded.task.tgt_dict)
    message = "begin or end with '.*' in the task AnotherTask, expected '</s>'"
    with pytest.raises(ValueError, match=message):
        given_symbols(begun, torch.arange(4), task)
    starts, ends = given_symbols(batch, torch.arange(4), task)
    assert starts.tolist() == [[2]] * 4 and ends.tolist() == [2] * 4


def test_a_decoder_of_all_tokens_at_once_is_refused(settle, batch, student, monkeypatch):
    monkeypatch.setattr(student.decoder, "forward", lambda normalize, encoder_out: None)
    with pytest.raises(ValueError, match="TransformerModel generates no targets"):
        settle(batch)


def test_weights_cast_while_generating_do_not_serve_the_step(settle, batch, student):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sample = settle(batch, kd_beta=0.0).sample
        output = student(**sample["net_input"])[0]
    output.float().sum().backward()
    assert student.encoder.layers[0].fc1.weight.grad is not None
    student.zero_grad()
    for parameter in student.parameters():
        parameter.grad = None


def test_a_model_that_cannot_generate_is_refused(settle, batch):
    with pytest.raises(ValueError, match="--kd-prefixes: Linear generates no targets"):
        settle(batch, model=torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("student", {"kd_coin": "word"}, "--kd-coin is 'word', expected one of row, batch"),
        ("student", {"kd_sampling_topk": 0}, "--kd-sampling-topk is 0, expected -1 or"),
        ("student", {"kd_schedule": "no"}, "--kd-schedule is 'no', expected one of constant"),
        ("student", {"kd_max_len_a": -1.0}, "--kd-max-len-a is -1.0"),
        ("student", {"kd_max_len_b": 0}, "--kd-max-len-b is 0"),
        ("interleaved", {"kd_accept_topk": -1}, "--kd-accept-topk is -1"),
        ("student", {"kd_sampling_topp": 0.0}, "--kd-sampling-topp is 0.0"),
        ("student", {"kd_sampling_temperature": 0.0}, "--kd-sampling-temperature is 0.0"),
        ("interleaved", {"kd_replacement_topp": 1.5}, "--kd-replacement-topp is 1.5"),
        ("interleaved", {"kd_replacement_temperature": -1.0}, "--kd-replacement-temperature"),
        ("switch", {"kd_switch_threshold": -1.0}, "--kd-switch-threshold is -1.0"),
        ("switch", {"kd_switch_decay": -1.0}, "--kd-switch-decay is -1.0"),
        ("teacher", {}, "--kd-prefixes is 'teacher', expected one of data, student, inter"),
    ],
)
def test_out_of_range(name, settings, message):
    with pytest.raises(ValueError, match=message):
        PREFIXES.resolve(name, settings)
