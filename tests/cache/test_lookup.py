"""A criterion that looks up the teacher's distributions in a cache."""

import contextlib
import shutil

import pytest
import torch
from conftest import HALF_SIZE, LONG, batch_of, colons, make_cache
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fairseq_seqkd.cache import build as building
from fairseq_seqkd.cache.store import DistributionCache
from fairseq_seqkd.criterions.config import DistillConfig
from fairseq_seqkd.criterions.distill import DistillCriterion
from fairseq_seqkd.losses.blockwise_sum import TargetPositions
from fairseq_seqkd.losses.divergences import DIVERGENCES


@pytest.fixture(scope="module")
def small(data, teacher, tmp_path_factory):
    """A cache of the top 8, in chunks of 16 sentences."""
    root = tmp_path_factory.mktemp("small") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "chunk_size", lambda sentences: 16)
        return make_cache(root, data, teacher)


@pytest.fixture
def copied(small, tmp_path):
    """A copy of that cache."""
    return shutil.copytree(small, tmp_path / "cache")


def build(task, **values):
    common = {"sentence_avg": False, "seed": 1, "max_update": 10, "train_subset": "train"}
    cfg = OmegaConf.structured(DistillConfig(**{**common, **values}))
    return DistillCriterion(task, cfg)


IDS = [3, 50, 20, 159, 0]


def loss_and_gradients(criterion, student, batch):
    student.zero_grad()
    loss, _, log = criterion(student, batch)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    return loss, gradients, log


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kd_divergence": "reverse_kl", "label_smoothing": 0.1},
        {"kd_divergence": "atkd"},
        {"kd_divergence": "decoupled", "kd_head": 3},
        {"kd_weighting": "entropy_divergence", "kd_alpha": 1.0},
    ],
)
def test_the_whole_distribution_is_the_teachers(task, student, teacher, cache, settings):
    batch = batch_of(task, IDS)
    live = loss_and_gradients(
        build(task, teacher_path=str(teacher), **settings), student, batch
    )
    cached = loss_and_gradients(build(task, kd_cache=str(cache), **settings), student, batch)
    torch.testing.assert_close(cached[0], live[0], rtol=1e-3, atol=0)
    scale = max(float(gradient.abs().max()) for gradient in live[1].values())
    for name, gradient in live[1].items():
        torch.testing.assert_close(cached[1][name], gradient, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("leftover", ["tail", "renormalise", "drop"])
@pytest.mark.parametrize("k", [None, 3, 8])
def test_the_top_k_are_the_teachers_top_k(task, student, teacher, small, k, leftover):
    batch = batch_of(task, IDS)
    same = {"kd_leftover": leftover}
    live = build(task, teacher_path=str(teacher), kd_top_k=k or 8, **same)
    cached = build(task, kd_cache=str(small), kd_top_k=k, **same)
    one, other = (loss_and_gradients(each, student, batch)[2] for each in (live, cached))
    assert one.keys() == other.keys()
    for key in one:
        assert float(other[key]) == pytest.approx(float(one[key]), rel=2e-3)


def test_finds_sentences_in_any_order_and_batch(task, student, small):
    criterion = build(task, kd_cache=str(small))
    each = [criterion(student, batch_of(task, [id_]))[0].item() for id_ in IDS]
    together = criterion(student, batch_of(task, IDS[::-1]))[0].item()
    assert together == pytest.approx(sum(each), rel=1e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES.options)
def test_sentences_without_rows_keep_their_nll(task, student, small, divergence):
    """A sentence that is too long for the teacher adds to the NLL, and to nothing else."""
    settings = {"kd_divergence": divergence, "kd_alpha": 0.5}
    settings.update({"kd_head": 3} if divergence == "decoupled" else {})
    settings.update(restore_file="checkpoint_last.pt")  # of options that remember
    criterion = build(task, kd_cache=str(small), **settings)
    torch.manual_seed(1)  # the first update: there is nothing to restore
    _, gradients, _ = loss_and_gradients(criterion, student, batch_of(task, [LONG]))
    assert not any(gradient.isnan().any() for gradient in gradients.values())
    alone, short = (criterion(student, batch_of(task, ids))[0] for ids in ([LONG], [3]))
    nll = build(task, kd_alpha=0.0)(student, batch_of(task, [LONG]))[0]
    torch.testing.assert_close(alone, 0.5 * nll)
    both, _, log = criterion(student, batch_of(task, [LONG, 3]))
    if divergence not in ("decoupled", "atkd"):  # those compare with the rest of the batch
        torch.testing.assert_close(both, alone + short)
    assert log["n_agree"] <= len(task.dataset("train")[3]["target"])


def test_no_teacher_is_loaded(task, student, small, monkeypatch):
    monkeypatch.setattr(
        "fairseq_seqkd.criterions.distill.shared_teacher", lambda *_: pytest.fail("loaded")
    )
    criterion = build(task, kd_cache=str(small))
    assert criterion(student, batch_of(task, IDS))[2]["kd_loss"] > 0
    assert criterion.eval()(student, batch_of(task, IDS))[2]["kd_loss"] == 0


def test_a_batch_of_the_validation_set_is_accepted(task, student, small):
    """fairseq trains on one, and ignores the result, on ranks that run out of batches."""
    criterion = build(task, kd_cache=str(small))
    _, _, log = criterion(student, batch_of(task, [3, 8], "valid"))
    assert log["nll_loss"] > 0 and log["kd_loss"] == 0


@contextlib.contextmanager
def data_in(task, *folders):
    """The task of a training on other data-bins."""
    before, task.cfg.data = task.cfg.data, colons(*folders)
    try:
        yield
    finally:
        task.cfg.data = before


class TestSeveralCaches:
    @pytest.fixture
    def shards(self, task, halves):
        """The task of a training on both halves of the data."""
        with data_in(task, *halves):
            yield task

    def losses(self, task, student, caches, first_ids, **settings):
        """The losses of batches of three ids each, from the whole training split."""
        criterion = build(task, kd_cache=caches, **settings)
        dataset, losses = task.dataset("train"), []
        for first in first_ids:
            batch = batch_of(task, range(first, first + 3))
            # In its half, a sentence's number begins at 0.
            batch["id"] -= HALF_SIZE * (first >= HALF_SIZE)
            losses.append(criterion(student, batch)[0].item())
        assert len(dataset) == 160
        return losses

    @pytest.mark.parametrize("first_ids", [(3, 100, 71, 4), (80, 20)])
    @pytest.mark.parametrize("order", [1, -1])
    def test_each_batch_finds_its_own(
        self, task, shards, student, small, half_caches, first_ids, order
    ):
        found = self.losses(shards, student, colons(*half_caches[::order]), first_ids)
        criterion = build(task, kd_cache=str(small))
        for first, loss in zip(first_ids, found):
            batch = batch_of(task, range(first, first + 3))
            with data_in(task, "DATA"):
                expected = criterion(student, batch)[0].item()
            assert loss == pytest.approx(expected, rel=1e-4)

    def test_too_long_sentences_are_told_apart(self, shards, student, half_caches):
        """A batch of them alone, which have no rows: by their hashes."""
        criterion = build(shards, kd_cache=colons(*half_caches[::-1]))
        assert criterion(student, batch_of(shards, [LONG]))[2]["kd_loss"] == 0
        batch = batch_of(shards, [LONG])
        batch["net_input"]["src_tokens"] = batch["net_input"]["src_tokens"].flip(1)
        with pytest.raises(ValueError, match="sentence 10 has .* or too many other target"):
            criterion(student, batch)

    def test_a_batch_of_the_validation_set(self, shards, student, half_caches):
        criterion = build(shards, kd_cache=colons(*half_caches))
        _, _, log = criterion(student, batch_of(shards, [3, 8], "valid"))
        assert log["nll_loss"] > 0 and log["kd_loss"] == 0

    def test_of_other_sentences(self, shards, student, half_caches):
        criterion = build(shards, kd_cache=colons(*half_caches))
        batch = batch_of(shards, [100])
        with pytest.raises(ValueError, match=r"is of other .*\(nor is any other of --kd-cache"):
            criterion(student, batch)

    @pytest.mark.parametrize("n_data, n_caches", [(2, 1), (1, 2), (2, 3)])
    def test_another_number(self, task, halves, half_caches, student, n_data, n_caches):
        criterion = build(task, kd_cache=colons(*[half_caches[0]] * n_caches))
        message = f"found {n_caches}, expected {n_data}: one folder for each data-bin"
        several = data_in(task, *[halves[0]] * n_data)
        with several, pytest.raises(ValueError, match=message):
            criterion(student, batch_of(task, [3]))

    def test_of_different_top_k(
        self, shards, student, halves, half_caches, teacher, data, tmp_path
    ):
        for path in data.glob("dict.*"):
            shutil.copy(path, tmp_path)
        both = shutil.copytree(halves[1], tmp_path / "second")
        for path in data.glob("dict.*"):
            shutil.copy(path, both)
        other = make_cache(tmp_path / "cache", both, teacher, "--top-k", 4)
        criterion = build(shards, kd_cache=colons(half_caches[0], other))
        with pytest.raises(ValueError, match="top_k: found 4, expected 8"):
            criterion(student, batch_of(shards, [3]))


class TestErrors:
    @pytest.fixture
    def fails(self, task, student):
        """fails(**settings): the error of a criterion that must fail."""

        def call(ids=(3,), error=ValueError, **settings):
            with pytest.raises(error) as raised:
                build(task, **settings)(student, batch_of(task, ids))
            return str(raised.value)

        return call

    def test_none_there(self, fails):
        message = fails(kd_cache="nowhere", error=FileNotFoundError)
        assert "no cache at 'nowhere'" in message and "fairseq-seqkd cache" in message

    def test_of_another_temperature(self, fails, small):
        message = fails(kd_cache=str(small), kd_temperature=2.0)
        assert "temperature: found 1.0, expected 2.0" in message

    def test_of_another_split(self, fails, small):
        message = fails(kd_cache=str(small), train_subset="train2")
        assert "data.split: found train, expected train2" in message

    def test_of_another_teacher(self, fails, small, word_kd_student):
        other = str(word_kd_student[0] / "checkpoint_last.pt")
        assert "teacher: found" in fails(kd_cache=str(small), teacher_path=other)

    def test_of_another_dictionary(self, fails, task, small, monkeypatch):
        monkeypatch.setattr(task.target_dictionary, "symbols", ["a", "b"])
        assert "dictionary.symbols: found 336" in fails(kd_cache=str(small))

    def test_of_other_targets(self, fails, store, teacher, data, tmp_path):
        root = make_cache(tmp_path / "cache", store / "best", teacher)
        message = fails(ids=range(100), kd_cache=str(root))
        assert "is of other sentences than this training: sentence" in message
        assert "sha256.train.src-tgt.tgt.bin: found" in message

    def test_of_another_source(self, fails, task, student, small):
        """The same targets, as in corpora with more than two languages."""
        batch = batch_of(task, [3])
        batch["net_input"]["src_tokens"] = batch["net_input"]["src_tokens"].flip(1)
        with pytest.raises(ValueError, match="sentence 3 has .* another source"):
            build(task, kd_cache=str(small))(student, batch)

    def test_of_fewer_sentences(self, fails, data, teacher, tmp_path):
        fewer = shutil.copytree(data, tmp_path / "data")
        for path in fewer.glob("valid.*"):
            shutil.copy(path, fewer / path.name.replace("valid", "train"))
        root = make_cache(tmp_path / "cache", fewer, teacher)
        message = fails(ids=[100], kd_cache=str(root))
        assert "sentence 100 is not in it: it has those from 0 to 23" in message

    def test_a_chunk_is_missing(self, fails, copied):
        sorted((copied / "rows").glob("*.npy"))[2].unlink()
        message = fails(kd_cache=str(copied))
        assert "is not finished: 1 chunks are missing, the first is number 2" in message

    @pytest.mark.parametrize("size", [-1, 200, 100, 0])
    def test_a_chunk_is_cut_short(self, fails, copied, size):
        path = sorted((copied / "rows").glob("*.npy"))[2]
        path.write_bytes(path.read_bytes()[:size])
        assert f"{str(path)!r} is cut short or damaged" in fails(kd_cache=str(copied))

    @given(
        chunk=st.integers(0, 9), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
    )
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_a_bit_of_a_chunk_flipped(self, task, copied, chunk, place, bit):
        """Wherever it is: the training that reads the chunk stops, and names it."""
        path = sorted((copied / "rows").glob("*.npy"))[chunk]
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[int(place * len(content))] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            with pytest.raises(ValueError) as raised:
                cache = build(task, kd_cache=str(copied)).cache
                pad = task.tgt_dict.pad()
                for ids in range(0, 160, 40):
                    batch = batch_of(task, range(ids, ids + 40))
                    cache.look_up(batch, TargetPositions(batch["target"].ne(pad)), pad)
        finally:
            path.write_bytes(content)
        assert f"--kd-cache: {str(path)!r} is cut short or damaged" in str(raised.value)
        assert "Run fairseq-seqkd cache again with the same flags" in str(raised.value)

    def test_each_chunk_is_verified_once_when_it_is_touched(
        self, task, student, copied, monkeypatch
    ):
        verified = []
        monkeypatch.setattr(DistributionCache, "verify", lambda _, path: verified.append(path))
        criterion = build(task, kd_cache=str(copied))
        for _ in range(2):
            criterion(student, batch_of(task, [3]))
        assert len(verified) == 1
        for _ in range(2):
            criterion(student, batch_of(task, range(160)))
        assert len(verified) == len(set(verified)) == 10

    def test_too_few_symbols(self, fails, small):
        message = fails(kd_cache=str(small), kd_top_k=9)
        assert "--kd-top-k is 9" in message and "the top 8" in message

    def test_too_few_symbols_for_a_divergence(self, fails, small):
        message = fails(kd_cache=str(small), kd_divergence="decoupled")
        assert "--kd-cache has the top 8" in message and "needs 11 of them or more" in message

    def test_top_k_too_small_for_a_divergence(self, fails, teacher):
        settings = {"kd_divergence": "decoupled", "kd_top_k": 10, "teacher_path": str(teacher)}
        assert "--kd-top-k is 10" in fails(**settings)

    def test_the_students_prefixes(self, fails, small):
        message = fails(kd_cache=str(small), kd_prefixes="student", teacher_path="t.pt")
        assert "--kd-cache is" in message and "expected --kd-prefixes data" in message

    def test_nothing_compared(self, fails, small):
        assert "nothing is compared with the teacher" in fails(
            kd_cache=str(small), kd_alpha=0.0
        )
