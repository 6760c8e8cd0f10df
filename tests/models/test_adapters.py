import pytest
import torch
from conftest import batch_of

from fairseq_seqkd.models import adapters
from fairseq_seqkd.models.adapters import eval_mode, output_layer_at
from fairseq_seqkd.models.loading import load_models


def test_eval_mode_restores_every_part(teacher):
    model = load_models(str(teacher))[0][0].train()
    model.encoder.eval()  # somebody's frozen part
    before = [part.training for part in model.modules()]
    with pytest.raises(KeyError), eval_mode(model):
        assert not any(part.training for part in model.modules())
        raise KeyError
    assert [part.training for part in model.modules()] == before


class TestOutputLayerAt:
    """The output layer runs where it is asked to, and gives the same there."""

    @pytest.fixture
    def batch(self, task):
        return batch_of(task, range(8))

    @pytest.fixture
    def model(self, teacher):
        return load_models(str(teacher))[0][0].eval()

    @staticmethod
    def at(model, batch, index):
        with output_layer_at(model, index) as logits_of_output:
            return logits_of_output(model(**batch["net_input"]))

    @pytest.mark.parametrize("index", [[0, 3, 5, 17], [9], []])
    def test_equals_the_whole_there(self, model, batch, index):
        whole = model(**batch["net_input"])[0].flatten(0, 1)
        index = torch.tensor(index, dtype=torch.long)
        torch.testing.assert_close(self.at(model, batch, index), whole[index])

    def test_no_logits_elsewhere(self, model, batch):
        shapes = []
        layer = model.decoder.output_projection
        layer.register_forward_hook(lambda *call: shapes.append(tuple(call[-1].shape[:-1])))
        self.at(model, batch, torch.tensor([1, 4, 5]))
        assert shapes == [(3,)]

    def test_a_model_of_unknown_kind_computes_all(self, model, batch, monkeypatch):
        expected = self.at(model, batch, torch.tensor([2, 7]))
        monkeypatch.setattr(adapters, "ends_in_output_layer", lambda model: False)
        given = self.at(model, batch, torch.tensor([2, 7]))
        torch.testing.assert_close(given, expected)

    def test_the_model_is_as_before(self, model, batch):
        before = dict(vars(model.decoder))
        with pytest.raises(KeyError), output_layer_at(model, torch.tensor([0])):
            raise KeyError
        assert vars(model.decoder) == before
        assert model(**batch["net_input"])[0].shape[:2] == batch["target"].shape
