import pytest

from fairseq_seqkd.models.adapters import eval_mode
from fairseq_seqkd.models.loading import load_models


def test_eval_mode_restores_every_part(teacher):
    model = load_models(str(teacher))[0][0].train()
    model.encoder.eval()  # somebody's frozen part
    before = [part.training for part in model.modules()]
    with pytest.raises(KeyError), eval_mode(model):
        assert not any(part.training for part in model.modules())
        raise KeyError
    assert [part.training for part in model.modules()] == before
