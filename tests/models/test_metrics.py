"""Metrics against their formulas, whatever the batches."""

import pytest
import torch
from torch import nn

from tglo_lightning.models.metrics import classification_metrics


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(157, 5, generator=generator)
    return logits, torch.randint(5, (157,), generator=generator)


def _by_hand(logits, target):
    h = logits.double().softmax(dim=1)
    y = nn.functional.one_hot(target, 5).double()
    confidence, predicted = h.max(dim=1)
    right = (predicted == target).double()
    bins = torch.bucketize(confidence, torch.linspace(0, 1, 16, dtype=torch.float64)[1:-1])
    gaps = [(confidence[bins == b].sum() - right[bins == b].sum()).abs() for b in range(15)]
    return {
        "val/acc": right.mean(),
        "val/nll": -(y * h.log()).sum(dim=1).mean(),
        "val/brier": ((y - h) ** 2).sum(dim=1).mean(),
        "val/ece": torch.stack(gaps).sum() / len(target),
    }


@pytest.mark.parametrize("batch", [157, 64])
def test_metrics_by_hand(predictions, batch):
    logits, target = predictions
    metrics = classification_metrics(5, "val/")
    for part in torch.arange(157).split(batch):
        metrics.update(logits[part], target[part])
    expected = {name: pytest.approx(float(value), abs=1e-5) for name, value in _by_hand(logits, target).items()}
    assert {name: float(value) for name, value in metrics.compute().items()} == expected


def test_certain_predictions():
    logits = torch.tensor([[100.0, 0.0], [100.0, 0.0]])
    for target, brier, nll in ((0, 0.0, 0.0), (1, 2.0, 100.0)):
        metrics = classification_metrics(2, "")
        metrics.update(logits, torch.full((2,), target))
        found = {name: float(value) for name, value in metrics.compute().items()}
        assert found == pytest.approx({"acc": 1.0 - target, "brier": brier, "nll": nll, "ece": target}, abs=1e-6)
