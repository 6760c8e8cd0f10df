"""Rounds of near-policy distillation, by the real command, with tiny trained models.

The teacher of the other tests is the student here, since its translations come to an end, and
their student is the teacher.
"""

import functools
import shutil
import time

import numpy as np
import pytest
import torch
from conftest import EMPTY, LONG, all_nbest, files, load_split, logged, train, without_dropout
from omegaconf import OmegaConf
from processes import dies_while_writing, ended_well, start_command

from fairseq_seqkd.cache.sentences import CachedSentences
from fairseq_seqkd.cache.store import DistributionCache
from fairseq_seqkd.cli.main import main
from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.databin import Split
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.losses import support
from fairseq_seqkd.teacher import load_teacher
from fairseq_seqkd.teacher import model as teacher_model

ENGINE = ["--engine", "fairseq", "--threads", 1, "--accept-unfinished", 1]
MIXED = ["--mix-fraction", 0.2, "--filter-score-percentile", 10, "--filter-length-ratio", 3]


@pytest.fixture(scope="module")
def student(teacher):
    """The checkpoint of the student."""
    return teacher


@pytest.fixture(scope="module")
def scorer(word_kd_student):
    """The checkpoint of the teacher."""
    return word_kd_student[0] / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def by(student, scorer):
    """The flags of the models."""
    return ["--student", student, "--teacher-path", scorer, *ENGINE]


def make(out, data, *flags):
    """Run ``fairseq-seqkd round``; returns the round's folder."""
    main([*map(str, ["round", data, "--out", out, *flags])])
    return out


@pytest.fixture(scope="module")
def plain(data, by, tmp_path_factory):
    """A round of all sentences, with the teacher's whole distributions."""
    return make(tmp_path_factory.mktemp("plain") / "1", data, *by, "--top-k", 336)


@pytest.fixture(scope="module")
def mixed(data, by, tmp_path_factory):
    """A filtered round with pairs of the data."""
    return make(tmp_path_factory.mktemp("mixed") / "1", data, *by, *MIXED)


def criterion_of(task, **values):
    """A criterion in training, at the update 0."""
    cfg = {"seed": 1, "max_update": 10, "sentence_avg": False, "kd_alpha": 1.0, **values}
    cfg = OmegaConf.structured(DistillConfig(**{"train_subset": "train", **cfg}))
    return DistillCriterion(task, cfg).train()


@pytest.fixture
def as_stored(monkeypatch):
    """A live teacher's top k in the cache's 16 bits, so that nothing else can differ."""

    def rounded(*arguments):
        top = support.top_k(*arguments)
        return support.TopK(top.symbols, *(values.half().float() for values in top[1:]))

    monkeypatch.setattr(teacher_model, "top_k", rounded)


def finished_ids(root):
    """The ids of sentences whose translation has an end.

    Those of one word are left out: in training a student may begin with the end, and a search
    may not.
    """
    lists = all_nbest(root / "student")
    sizes = {i: len(one.hypotheses[0][0]) for i, one in lists.items() if one.hypotheses}
    return sorted(i for i, size in sizes.items() if 2 < size < 20)


def batches_of(dataset, ids, size=16):
    return [
        dataset.collater([dataset[id_] for id_ in ids[begin : begin + size]])
        for begin in range(0, len(ids), size)
    ]


def task_on(folder, student):
    """The student's task with the training set of a data-bin."""
    task = load_teacher(str(student), str(folder)).task
    task.cfg.data = str(folder)
    task.load_dataset("train")
    return task


def test_the_loss_is_that_of_a_live_teacher_on_the_same_rows(plain, student, scorer, as_stored):
    """The cache has the teacher's distributions on the student's text."""
    task = task_on(plain / "data-bin", student)
    model = without_dropout(student)
    cached = criterion_of(task, kd_cache=str(plain / "cache"))
    live = criterion_of(task, teacher_path=str(scorer), kd_top_k=336)
    ids = [i for i in range(160) if i != LONG]
    for batch in batches_of(task.dataset("train"), ids):
        torch.manual_seed(1)
        losses = [one(model, batch)[0].item() for one in (cached, live)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert losses[0] > 1


def test_it_is_the_loss_of_a_student_that_generates_live(
    data, plain, student, scorer, as_stored
):
    """The rows are those that it generates in training, and so is the loss."""
    tasks = {folder: task_on(folder, student) for folder in (data, plain / "data-bin")}
    model = without_dropout(student)
    cached = criterion_of(tasks[plain / "data-bin"], kd_cache=str(plain / "cache"))
    prefixes = {"kd_prefixes": "student", "kd_schedule": "constant", "kd_beta": 0.0}
    prefixes["kd_max_len_b"] = 30  # longer than any of them
    live = criterion_of(tasks[data], teacher_path=str(scorer), kd_top_k=336, **prefixes)
    ids = finished_ids(plain)
    assert len(ids) > 40
    of_data, of_round = (batches_of(task.dataset("train"), ids) for task in tasks.values())
    for gold, generated in zip(of_data, of_round):
        torch.manual_seed(1)
        assert not torch.equal(gold["target"], generated["target"])
        (expected, _, log), (found, _, _) = live(model, gold), cached(model, generated)
        assert log["n_student_tokens"] == generated["ntokens"]
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_scores_are_the_teachers(plain, scorer, student):
    task = task_on(plain / "data-bin", student)
    teacher = load_teacher(str(scorer))
    cache = CachedSentences(DistributionCache(str(plain / "cache")))
    dataset = task.dataset("train")
    for id_ in (0, 3, EMPTY, 50):
        batch = dataset.collater([dataset[id_]])
        lprobs = torch.log_softmax(teacher.logits(batch["net_input"]).at(slice(None)), -1)
        of_target = lprobs.gather(-1, batch["target"].view(-1, 1)).mean().item()
        assert cache.scores[id_] == pytest.approx(of_target, abs=1e-4)
    report = read_json(plain / "report.json")
    assert report["teacher_score"] == pytest.approx(np.nanmean(cache.scores), abs=1e-6)


def test_a_training_reads_it_without_the_teacher(plain, tmp_path):
    output = train(
        *[plain / "data-bin", tmp_path, "--task", "translation", "--criterion", "distill"],
        *["--kd-alpha", 1, "--kd-cache", plain / "cache", "--max-update", 3],
    )
    assert len(logged(output, "train_inner")) == 3
    assert all(float(line["kd_loss"]) > 0 for line in logged(output, "train_inner"))


def test_it_says_what_was_made(data, by, plain, capsys):
    make(plain, data, *by)  # once more, without the options: nothing is left to do
    lines = capsys.readouterr().out.splitlines()
    report = read_json(plain / "report.json")
    assert lines[0] == f"{plain}: 160 pairs"
    assert lines[1] == f"  {report['generated']} generated by the student of update 40, greedy"
    assert "  1 sentences keep their gold target: empty source" in lines
    (scores,) = (line for line in lines if "score of the student's text" in line)
    assert f"{report['teacher_score']:.3f} by the teacher" in scores
    assert lines[-1].endswith(f"--kd-alpha 1 --kd-cache {plain}/cache ...")


def pairs_in(folder):
    dataset = load_split(folder).dataset
    return [(dataset.src[i].tolist(), dataset.tgt[i].tolist()) for i in range(len(dataset))]


def test_mixing_and_filtering(data, student, scorer, mixed):
    everything, kept = (pairs_in(mixed / one) for one in ("unfiltered/data-bin", "data-bin"))
    best, gold = pairs_in(mixed / "student" / "best"), pairs_in(data)
    report = read_json(mixed / "report.json")
    # Of all pairs that are scored, a fifth are the data's.
    assert len(everything) == len(best) + report["mixed"]
    assert report["mixed"] / len(everything) == pytest.approx(0.2, abs=0.01)
    assert everything[: len(best)] == best
    drawn = everything[len(best) :]
    assert len({(*s, -1, *t) for s, t in drawn}) == len(drawn)
    assert all(pair in gold for pair in drawn) and drawn != gold[: len(drawn)]
    # The tenth with the lowest scores is left out, and the data's pairs stay.
    scores = CachedSentences(DistributionCache(str(mixed / "unfiltered" / "cache"))).scores
    limit = np.nanpercentile(scores[: len(best)], 10)
    expected = [one for one, score in zip(best, scores) if score >= limit]
    assert kept == expected + drawn
    assert report["rejected"] == len(best) - len(expected) > 0
    assert report["teacher_score"] < report["teacher_score_kept"]
    # No side of a generated pair is three times as long as the other.
    lengths = [sorted((len(s) - 1, len(t) - 1)) for s, t in best if (s, t) not in gold]
    assert max(long / max(short, 1) for short, long in lengths) <= 3
    assert read_json(mixed / "student" / "best" / "target_spec.json")["filter_action"] == "drop"


def test_the_filtered_cache_has_the_rows_of_the_unfiltered(mixed, scorer):
    sentences = {}
    for name in ("unfiltered", "."):
        split = Split.load_for_scoring(str(scorer), str(mixed / name / "data-bin"), "train")
        cached = CachedSentences(DistributionCache(str(mixed / name / "cache")))
        for id_ in range(len(split)):
            item = split.dataset[id_]
            source, target = item["source"].numpy(), item["target"].numpy()
            assert cached.mismatch(id_, source, target) is None
            rows = sentences.setdefault((name, *source, -1, *target), cached.rows_of(id_))
            if name == ".":
                other = sentences[("unfiltered", *source, -1, *target)]
                assert np.array_equal(rows, other) and len(rows) == len(target)


def test_a_part_of_the_sentences_by_seed(data, by, tmp_path):
    drawn = []
    for seed in (1, 2):
        root = make(tmp_path / str(seed), data, *by, "--sentences", 40, "--seed", seed)
        drawn.append([source for source, _ in pairs_in(root / "sources")])
        assert [source for source, _ in pairs_in(root / "data-bin")] == drawn[-1]
        assert len(drawn[-1]) == 40
    assert drawn[0] != drawn[1]


def test_sampled(data, by, tmp_path, plain):
    texts = []
    for seed in (1, 2):
        flags = ["--sampling", "--seed", seed, "--sentences", 40]
        root = make(tmp_path / str(seed), data, *by, *flags)
        greedy = {tuple(s): t for s, t in pairs_in(plain / "data-bin")}
        texts.append([t == greedy[tuple(s)] for s, t in pairs_in(root / "data-bin")])
        assert not all(texts[-1])
    assert read_json(tmp_path / "1" / "manifest.json")["options"]["sampling"] is True


def test_teacher_rows_are_mixed_in(data, by, store, tmp_path):
    flags = ["--mix-fraction", 0.5, "--mix-with", store / "best"]
    root = make(tmp_path / "1", data, *by, *flags)
    size = read_json(root / "report.json")["mixed"]
    assert size == 160 and sorted(pairs_in(root / "data-bin")[160:]) == sorted(
        pairs_in(store / "best")
    )


@pytest.fixture(scope="module")
def start(data, by):
    """start(root, *flags): start a round with chunks of four sentences."""

    def start(root, *more, **options):
        return start_command("round", data, "--out", root, *by, *MIXED, *more, **options)

    return start


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    """The files of a round that one process made without a break."""
    root = tmp_path_factory.mktemp("unbroken") / "1"
    assert ended_well(start(root))
    assert len(list((root / "student" / "nbest").glob("chunk-*"))) == 40
    return files(root)


class TestKilled:
    """Processes that are killed, and started again."""

    def test_in_every_step(self, start, unbroken, tmp_path):
        """Each time a little further than the last."""
        root = tmp_path / "1"
        for n_flushes, made in (
            (0, "manifest.json"),
            (40, "student/best"),
            (30, "unfiltered/data-bin"),
            (30, "unfiltered/cache/rows/sums.json"),
            (60, "cache"),
            (60, "report.json"),
        ):
            assert not (root / made).exists(), made
            dying = functools.partial(dies_while_writing, n_flushes)
            assert not ended_well(start(root, prepare=dying))
        assert (root / "unfiltered" / "cache" / "rows").exists()
        assert ended_well(start(root))
        assert files(root) == unbroken

    def test_two_processes_of_which_one_is_killed(self, start, unbroken, tmp_path):
        root = tmp_path / "1"
        running = [start(root, "--num-shards", 2, "--shard-id", rank) for rank in range(2)]
        while not list(root.glob("student/nbest/chunk-*")):
            time.sleep(0.01)
        running[1].kill()
        running[1].join()
        running[1] = start(root, "--num-shards", 2, "--shard-id", 1)
        assert all([ended_well(child) for child in running])
        assert files(root) == unbroken


class TestRefused:
    """A round that was begun otherwise, and options out of range."""

    @pytest.fixture
    def begun(self, plain, tmp_path):
        return shutil.copytree(plain, tmp_path / "1")

    def refusal(self, refused, root, data, student, scorer, *flags):
        models = ["--student", student, "--teacher-path", scorer]
        before = files(root) if root.exists() else None
        message = refused("round", data, "--out", root, *models, *ENGINE, *flags)
        assert before is None or files(root) == before
        return message

    def test_other_models(self, refused, begun, data, student, scorer):
        message = self.refusal(refused, begun, data, scorer, scorer)
        assert f"--out: the round '{begun}' was made from other data" in message
        assert "\n  student: found ['" in message and "teacher:" not in message
        message = self.refusal(refused, begun, data, student, student)
        assert "\n  teacher: found ['" in message and "student:" not in message

    def test_other_data(self, refused, begun, halves, student, scorer):
        message = self.refusal(refused, begun, halves[0], student, scorer)
        assert "\n  data.sentences: found 160, expected 70" in message

    def test_other_pairs_to_mix_in(self, refused, begun, data, store, student, scorer):
        other = ["--mix-with", store / "best"]
        message = self.refusal(refused, begun, data, student, scorer, *other)
        assert "\n  mixed_from.sha256.train.src-tgt.tgt.bin: found " in message
        assert "student:" not in message and "  data." not in message

    def test_other_options(self, refused, begun, data, student, scorer):
        flags = ["--beam", 2, "--sentences", 7]
        message = self.refusal(refused, begun, data, student, scorer, *flags)
        assert "\n  options.beam: found 1, expected 2\n" in message
        assert "\n  options.sentences: found None, expected 7\n" in message

    @pytest.mark.parametrize(
        "flags, expected",
        [
            (["--mix-fraction", "1"], "--mix-fraction is 1.0, expected from 0 to below 1"),
            (["--sentences", "161"], "--sentences is 161, expected from 1 to 160"),
            (["--sentences", "0"], "--sentences is 0, expected from 1 to 160"),
            (["--sampling", "--beam", "3"], "--beam is 3 with --sampling"),
            (["--seed", "-1"], "--seed is -1, expected a whole number from 0 to"),
            (["--beam", "0"], "from 1 to the beam, which is 0"),
            (["--filter-score-percentile", "100"], "--filter-score-percentile is 100.0"),
            (["--filter-length-ratio", "0.5"], "--filter-length-ratio is 0.5, expected 1"),
            (["--top-k", "0"], "--top-k is 0, expected from 1 to 336"),
            (["--temperature", "-1"], "--temperature is -1.0, expected a number above 0"),
            (["--teacher-dtype", "int3"], "--teacher-dtype is 'int3', expected one of float32"),
            (["--mix-with", "nowhere"], "nowhere"),
        ],
    )
    def test_options(self, refused, tmp_path, data, student, scorer, flags, expected):
        root = tmp_path / "1"
        assert expected in self.refusal(refused, root, data, student, scorer, *flags)
        assert not root.exists()

    def test_a_folder_with_something_else(self, refused, data, student, scorer, store):
        message = self.refusal(refused, store / "best", data, student, scorer)
        assert "and no manifest.json, so that it is no round" in message

    def test_no_student(self, refused, data, scorer, tmp_path):
        message = self.refusal(refused, tmp_path / "1", data, tmp_path / "no.pt", scorer)
        assert "no checkpoint at" in message and "no.pt" in message

    def test_mixing_in_sources_only(self, refused, data, student, scorer, tmp_path):
        sources = shutil.copytree(data, tmp_path / "sources")
        for path in sources.glob("train.src-tgt.tgt.*"):
            path.unlink()
        flags = ["--mix-fraction", 0.5]
        message = self.refusal(refused, tmp_path / "1", sources, student, scorer, *flags)
        assert "has sources only. Name a data-bin with targets by --mix-with" in message

    def test_too_many_unfinished(self, data, student, scorer, tmp_path, capsys):
        flags = ["--max-len-b", 2, "--engine", "fairseq", "--threads", 1]
        models = ["--student", student, "--teacher-path", scorer]
        with pytest.raises(SystemExit, match="3"):
            main([*map(str, ["round", data, "--out", tmp_path / "1", *models, *flags])])
        assert "finished no hypothesis for" in capsys.readouterr().err


def test_sources_without_targets(data, by, tmp_path):
    """Sentences without a hypothesis are dropped then."""
    sources = shutil.copytree(data, tmp_path / "sources")
    for path in sources.glob("train.src-tgt.tgt.*"):
        path.unlink()
    root = make(tmp_path / "1", sources, *by, "--sentences", 100)
    report = read_json(root / "report.json")
    assert report["gold"] == {} and report["pairs"] == report["generated"]
    assert len(load_split(root / "data-bin").dataset) == report["pairs"] > 40
