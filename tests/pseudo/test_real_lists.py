"""Selection from the n-best lists of a trained teacher on real text; see also
``examples/benchmarks/mbr.sh``, which looks at a thousand lists.
"""

import gzip
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from conftest import BEST
from processes import fairseq
from sacrebleu.metrics import BLEU, CHRF

from fairseq_seqkd.chunked.workers import Worker
from fairseq_seqkd.databin import open_split
from fairseq_seqkd.pseudo.generate import open_store, translate
from fairseq_seqkd.pseudo.recipe import Recipe
from fairseq_seqkd.pseudo.selectors import build_selector, scores_at
from fairseq_seqkd.pseudo.store import read_nbest
from fairseq_seqkd.teacher import load_teacher

SHARED = Path(__file__).resolve().parents[3] / "shared" / "multi30k"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/multi30k")
OF_SACREBLEU = {
    "chrf": CHRF(),
    "bleu": BLEU(smooth_method="exp", effective_order=True),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The store of 5-best lists of 60 real sentences, and the target dictionary."""
    folder = tmp_path_factory.mktemp("real")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(SHARED / "spm.model"))
    for lang in ("de", "en"):
        with gzip.open(SHARED / f"val.{lang}.gz", "rt", encoding="utf-8") as lines:
            cut = [
                " ".join(pieces.encode(next(lines).strip(), out_type=str)) for _ in range(60)
            ]
        (folder / f"text.{lang}").write_text("".join(line + "\n" for line in cut))
    fairseq(
        *["preprocess", "-s", "de", "-t", "en", "--trainpref", folder / "text"],
        *["--joined-dictionary", "--srcdict", SHARED / "dict.txt", "--destdir", folder / "bin"],
    )
    split, path = open_split(str(folder / "bin"), "train"), str(SHARED / "teacher.pt")
    recipe = Recipe(
        teacher_path=path,
        load_teacher=lambda device, dtype: load_teacher(path, str(folder / "bin")),
        engine={"name": "fairseq"},
    )
    store = open_store(str(folder / "store"), split, BEST, recipe)
    translate(store, split, recipe, Worker())
    return store, split.dataset.tgt_dict


@pytest.mark.parametrize("has_weights", [False, True])
@pytest.mark.parametrize("metric", list(OF_SACREBLEU))
def test_mbr_is_a_plain_loop_over_sacrebleu(real, metric, has_weights):
    store, dictionary = real
    built = build_selector("mbr", dictionary, metric, has_weights, remove_bpe="sentencepiece")
    selector, n_lists = built.of_store(store), 0
    for path in store.chunks.find().values():
        for sentence in read_nbest(path):
            hypotheses, weights = sentence.hypotheses, np.ones(5)
            texts = [selector.detokenise.text(tokens) for tokens, _ in hypotheses]
            if has_weights:
                weights = np.exp(scores_at(0, hypotheses, 1.0))
            means = []
            for i, one in enumerate(texts):
                others = [j for j in range(5) if j != i]
                scores = [
                    OF_SACREBLEU[metric].sentence_score(one, [texts[j]]).score for j in others
                ]
                means.append(np.dot(scores, weights[others]) / weights[others].sum())
            np.testing.assert_allclose(selector.values(hypotheses), means, rtol=1e-6)
            assert selector(hypotheses, None) == int(np.argmax(np.round(means, 9)))
            n_lists += 1
    assert n_lists == 60
