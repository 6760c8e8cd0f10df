"""``--keep N``: a data-bin of the N best hypotheses of every sentence."""

import os
import shutil

import numpy as np
import pytest
from conftest import BEST, EMPTY, LONG, TINY, TRAINING, all_nbest, load_split, tokens_of, train
from processes import fairseq

from fairseq_seqkd.cli.main import main
from fairseq_seqkd.io.files import read_json
from fairseq_seqkd.pseudo.build_databin import build_databin
from fairseq_seqkd.pseudo.selectors import Best, MinimumBayesRisk
from fairseq_seqkd.pseudo.store import PseudoTargetStore
from fairseq_seqkd.pseudo.target_spec import TargetSpec


@pytest.fixture
def root(store, tmp_path):
    """A copy of the store of 4-best lists."""
    return shutil.copytree(store, tmp_path / "store")


def pairs_in(databin):
    """The training pairs of a data-bin, as tuples of lists of token ids."""
    dataset = load_split(databin).dataset
    return [(dataset.src[i].tolist(), dataset.tgt[i].tolist()) for i in range(len(dataset))]


def expected_pairs(split, lists, keep):
    """The first hypotheses of every list; gold where there is none."""
    pairs = []
    for id_ in range(len(split)):
        targets = tokens_of(lists[id_])[:keep] or [split.dataset.tgt[id_].tolist()]
        pairs += [(split.dataset.src[id_].tolist(), target) for target in targets]
    return pairs


def test_the_best_hypotheses_are_pairs_in_the_order_of_the_split(root, split):
    databin = build_databin(PseudoTargetStore(str(root)), split, TargetSpec(Best(), keep=3))
    lists = all_nbest(root)
    assert os.path.basename(databin) == "best-keep3"
    assert pairs_in(databin) == expected_pairs(split, lists, 3)
    report, best = (read_json(os.path.join(root, n, "target_spec.json")) for n in NAMES)
    assert report["keep"] == 3 and best["keep"] is None
    assert report["sentences"] == best["sentences"]
    assert report["quality"] == best["quality"]
    assert report["pairs"] == len(pairs_in(databin)) > 160


NAMES = ("best-keep3", "best")


def test_a_source_is_stored_once(root, split):
    databin = build_databin(PseudoTargetStore(str(root)), split, TargetSpec(Best(), keep=4))
    source = "train.src-tgt.src.bin"
    sizes = [
        os.path.getsize(os.path.join(folder, source)) for folder in (databin, split.folder)
    ]
    assert sizes[0] == sizes[1]


def test_another_selector_ranks_anew(root, split):
    selector = MinimumBayesRisk(split.dataset.tgt_dict)
    databin = build_databin(PseudoTargetStore(str(root)), split, TargetSpec(selector, keep=2))
    assert os.path.basename(databin) == "mbr-keep2"
    targets = [target for _, target in pairs_in(databin)]
    for sentence in all_nbest(root).values():
        hypotheses = sentence.hypotheses
        if len(hypotheses) > 1:
            order = np.argsort(-selector.values(hypotheses), kind="stable")[:2]
            two = [hypotheses[i][0].tolist() for i in order]
            assert selector(hypotheses) == order[0]
            assert any(targets[i : i + 2] == two for i in range(len(targets)))


@pytest.mark.parametrize("drop", [False, True])
def test_filters_take_pairs(root, split, drop):
    """A sentence none of whose pairs are left keeps gold, or is dropped."""
    filters = {"length_ratio": 1.2}
    spec = TargetSpec(Best(), filters, drop, folder="some", keep=4)
    databin = build_databin(PseudoTargetStore(str(root)), split, spec)
    expected, n_rejected, n_without = [], 0, 0
    for id_, sentence in sorted(all_nbest(root).items()):
        source, gold = split.dataset.src[id_].tolist(), split.dataset.tgt[id_].tolist()
        length = max(len(source) - 1, 1)
        ratios = [max(r, 1 / r) for r in ((len(t) - 1) / length for t in tokens_of(sentence))]
        left = [t for t, r in zip(tokens_of(sentence), ratios) if r <= 1.2]
        n_rejected += len(ratios) - len(left)
        if not left and not (drop and ratios):
            left = [gold]
        n_without += not left or left == [gold]
        expected += [(source, target) for target in left]
    assert pairs_in(databin) == expected
    report = read_json(os.path.join(databin, "target_spec.json"))
    assert report["rejected_pairs"] == {"filter length_ratio": n_rejected} and n_rejected > 50
    assert report["pairs"] == len(expected)
    counted = {**report["sentences"]["gold"], **report["sentences"]["dropped"]}
    assert report["sentences"]["teacher"] + sum(counted.values()) == 160


def test_more_than_the_store_has(root, data, refused):
    where = ["--pseudo-targets", root, "--threads", 1]
    message = refused("merge", data, *where, "--keep", 5)
    assert "--keep is 5, and the store has 4 hypotheses per sentence" in message
    assert "--keep is 0, expected 1 or more" in refused("merge", data, *where, "--keep", 0)


def test_stock_fairseq_trains_on_it(root, data, tmp_path, capsys):
    main(["merge", str(data), "--pseudo-targets", str(root), "--threads", "1", "--keep", "2"])
    output = capsys.readouterr().out
    assert "pairs; kept per sentence: 2" in output and "criterion" not in output
    stock = ["--task", "translation", "--criterion", "cross_entropy", "--max-update", 2]
    where = ["--save-dir", tmp_path / "run", "--skip-invalid-size-inputs-valid-test"]
    fairseq("train", root / "best-keep2", *TRAINING, *TINY, *stock, *where)


def test_a_training_refuses_it_as_pseudo_targets(root, data, tmp_path, split):
    """As the store, and under the name of the data-bin that the training reads."""
    shutil.rmtree(root / "best")
    store = PseudoTargetStore(str(root))
    build_databin(store, split, TargetSpec(Best(), folder="best", keep=2))
    task = ["--task", "translation_seqkd", "--criterion", "seq_kd", "--max-update", 1]
    for folder in (root, root / "best"):
        output = train(data, tmp_path, *task, "--pseudo-targets", folder, fails=True)
        assert "best' was made with --keep 2: it has several pairs per sentence" in output
        assert "Train on it with --task translation and without" in output
    with pytest.raises(ValueError, match="keep: found 2, expected None"):
        build_databin(store, split, BEST)
    build_databin(store, split, TargetSpec(Best(), folder="other"))
    output = train(data, tmp_path, *task, "--pseudo-targets", root / "other", fails=True)
    assert (
        f"is a data-bin of a store, and not a store: expected the folder that it lies in, "
        f"'{root}'" in output
    )


def test_sentences_without_a_hypothesis_have_one_pair(root, split):
    databin = build_databin(PseudoTargetStore(str(root)), split, TargetSpec(Best(), keep=4))
    sources = [source for source, _ in pairs_in(databin)]
    for id_ in (EMPTY, LONG):
        assert sources.count(split.dataset.src[id_].tolist()) == 1
