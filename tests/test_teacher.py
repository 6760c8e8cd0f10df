import shutil

import pytest
import torch
from conftest import load_split, lprobs_of, preprocess, train

from fairseq_seqkd.decoding.fairseq_engine import FairseqEngine
from fairseq_seqkd.decoding.search import SearchOptions
from fairseq_seqkd.teacher import LazyLogits, Teacher, load_teacher, shared_teacher


@pytest.fixture(scope="module")
def batch(loaded):
    loaded.task.load_dataset("valid")
    dataset = loaded.task.dataset("valid")
    return dataset.collater([dataset[i] for i in range(8)])


def test_lprobs_are_normalised_float32(loaded, batch):
    lprobs = lprobs_of(loaded, batch["net_input"])
    assert lprobs.dtype == torch.float32
    assert lprobs.shape == (*batch["target"].shape, len(loaded.task.target_dictionary))
    torch.testing.assert_close(lprobs.exp().sum(-1), torch.ones(batch["target"].shape))


def test_frozen(loaded, batch):
    assert not lprobs_of(loaded, batch["net_input"]).requires_grad
    for model in loaded.models:
        assert not model.training
        with pytest.raises(RuntimeError, match="cannot train"):
            model.train()
        assert all(p.grad is None for p in model.parameters())


def test_is_no_module():
    # A module that a criterion owns, fairseq saves, casts and trains.
    assert not issubclass(Teacher, torch.nn.Module)


def test_ensemble_of_two_copies_equals_one(teacher, loaded, batch):
    two = load_teacher(f"{teacher}:{teacher}")
    one_lprobs, two_lprobs = (lprobs_of(t, batch["net_input"]) for t in (loaded, two))
    torch.testing.assert_close(one_lprobs, two_lprobs)
    search = SearchOptions(beam=3, nbest=3)
    for ones, twos in zip(*(t.generate(batch["net_input"], search) for t in (loaded, two))):
        assert [h["tokens"].tolist() for h in ones] == [h["tokens"].tolist() for h in twos]


def test_ensemble_averages_probabilities(teacher, loaded, batch):
    other = load_teacher(str(teacher)).models[0]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    both = Teacher([*loaded.models, other], loaded.task)
    alone = Teacher([other], loaded.task)
    mean = (
        lprobs_of(loaded, batch["net_input"]).exp() + lprobs_of(alone, batch["net_input"]).exp()
    ) / 2
    torch.testing.assert_close(lprobs_of(both, batch["net_input"]).exp(), mean)


def test_generates_nbest_best_first(loaded, batch):
    for hypotheses in loaded.generate(batch["net_input"], SearchOptions(beam=4, nbest=3)):
        scores = [float(h["score"]) for h in hypotheses]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert all(h["tokens"][-1] == loaded.task.target_dictionary.eos() for h in hypotheses)


def test_score_is_the_mean_log_probability(loaded, batch):
    """The score of a generated hypothesis is its mean log-probability."""
    ids, dataset = [0, 1, 2], loaded.task.dataset("valid")
    for id_, ((tokens, score),) in FairseqEngine(loaded, SearchOptions())(dataset, ids):
        pair = {**dataset[id_], "target": torch.from_numpy(tokens)}
        sample = dataset.collater([pair])
        lprobs = lprobs_of(loaded, sample["net_input"])[0]
        of_target = lprobs.gather(1, sample["target"][0].unsqueeze(1))
        assert score == pytest.approx(of_target.mean().item(), abs=1e-4)


def test_loaded_once_a_process(teacher, loaded):
    first = shared_teacher(str(teacher), loaded.task)
    assert shared_teacher(str(teacher), loaded.task) is first
    assert shared_teacher(str(teacher), loaded.task, dtype=torch.float64) is not first


def test_loading_leaves_the_random_stream_alone(teacher):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_teacher(str(teacher))
    assert torch.equal(torch.rand(3), expected)


def test_student_with_another_dictionary(loaded, data, tmp_path):
    shutil.copy(data / "dict.src.txt", tmp_path)
    lines = (data / "dict.tgt.txt").read_text().splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    (tmp_path / "dict.tgt.txt").write_text("\n".join(lines) + "\n")
    student = load_teacher_task(loaded, tmp_path)
    ours, theirs = (lines[i].split()[0] for i in (3, 2))
    message = f"target dictionary.*index 6 the teacher has '{ours}'.*'{theirs}'.*seq_kd"
    with pytest.raises(ValueError, match=message):
        loaded.check_dictionaries(student)


def test_student_with_a_longer_dictionary(loaded, data, tmp_path):
    shutil.copy(data / "dict.tgt.txt", tmp_path)
    text = (data / "dict.src.txt").read_text()
    (tmp_path / "dict.src.txt").write_text(text + "more 1\n")
    student = load_teacher_task(loaded, tmp_path)
    with pytest.raises(ValueError, match="source.*teacher has nothing.*'more'"):
        loaded.check_dictionaries(student)


def load_teacher_task(loaded, data):
    """A task like the teacher's with other dictionaries, as a student's might be."""
    task = type(loaded.task)
    dictionaries = [
        task.load_dictionary(str(data / f"dict.{side}.txt")) for side in ("src", "tgt")
    ]
    return task(loaded.task.cfg, *dictionaries)


def test_beams_of_one_model_take_turns(text, tmp_path):
    """BART keeps a beam size of its own, and would read other sentences' sources with it."""
    small = ["--encoder-layers", 1, "--decoder-layers", 1]
    for side in ("encoder", "decoder"):
        small += [f"--{side}-embed-dim", 16, f"--{side}-ffn-embed-dim", 16]
        small += [f"--{side}-attention-heads", 2]
    loss = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 30]
    limits = ["--max-source-positions", 60, "--max-target-positions", 60]
    model = ["--arch", "bart_base", *small, "--no-token-positional-embeddings"]
    data = preprocess(text, tmp_path / "data-bin", "--joined-dictionary")
    train(data, tmp_path, *loss, *limits, "--lr", "0.02", model=model)
    teacher = load_teacher(str(tmp_path / "checkpoint_last.pt"))
    dataset = load_split(data).dataset
    inputs = dataset.collater([dataset[i] for i in range(20, 30)])["net_input"]
    greedy, beam = SearchOptions(beam=1), SearchOptions(beam=5)
    before = teacher.generate(inputs, greedy)
    lprobs = lprobs_of(teacher, inputs)
    teacher.generate(inputs, beam)
    after = teacher.generate(inputs, greedy)
    assert [h[0]["score"].item() for h in before] == [h[0]["score"].item() for h in after]
    assert torch.equal(lprobs_of(teacher, inputs), lprobs)


def test_the_encoder_reads_a_batch_once(teacher, batch, monkeypatch):
    """However many prefixes of its sentences are scored."""
    fresh = load_teacher(str(teacher))
    encoder, calls = fresh.models[0].encoder, []
    read = encoder.forward
    monkeypatch.setattr(
        encoder, "forward", lambda **sources: calls.append(1) or read(**sources)
    )
    inputs = batch["net_input"]
    first = lprobs_of(fresh, inputs)
    other = {**inputs, "prev_output_tokens": inputs["prev_output_tokens"].roll(1, 0)}
    assert not torch.equal(lprobs_of(fresh, other), first)
    assert torch.equal(lprobs_of(fresh, inputs), first)
    assert len(calls) == 1
    changed = {**inputs, "src_tokens": inputs["src_tokens"].roll(1, 0)}
    assert not torch.equal(lprobs_of(fresh, changed), first)
    assert len(calls) == 2


def test_scores_are_what_the_model_says(loaded, batch):
    inputs = batch["net_input"]
    model = loaded.models[0]
    with torch.no_grad():
        expected = model.get_normalized_probs(model(**inputs), log_probs=True)
    torch.testing.assert_close(lprobs_of(loaded, inputs), expected)


def test_scores_of_some_positions_are_those_of_all(loaded, batch, monkeypatch):
    monkeypatch.setattr(LazyLogits, "_AT_ONCE", 7)
    expected = lprobs_of(loaded, batch["net_input"]).flatten(0, 1)
    logits = loaded.logits(batch["net_input"])
    for positions in (
        slice(0, 3),
        slice(3, 6),
        slice(6, 9),
        slice(0, 1),
        slice(20, 50),
        slice(22, 23),
    ):
        lprobs = torch.log_softmax(logits.at(positions), -1)
        torch.testing.assert_close(lprobs, expected[positions])


def test_scores_of_a_model_that_is_not_known(loaded, batch, monkeypatch):
    """It is called as a whole, and asked for its probabilities."""
    model = loaded.models[0]
    expected = lprobs_of(loaded, batch["net_input"])

    class Sharper(type(model)):
        def get_normalized_probs(self, net_output, log_probs, sample=None):
            return torch.log_softmax(2 * net_output[0], -1)

    monkeypatch.setattr(model, "__class__", Sharper)
    result = lprobs_of(Teacher([model], loaded.task), batch["net_input"])
    torch.testing.assert_close(result, torch.log_softmax(2 * expected, -1))
