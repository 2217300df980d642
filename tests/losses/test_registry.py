"""Names, vectors and torch's modules become members of the family."""

import pytest
import torch
from torch import nn

from tglo_lightning.losses import (
    BaikalLoss,
    CrossEntropyLoss,
    GCELoss,
    NCERCELoss,
    SCELoss,
    TaylorGLOLoss,
    as_loss,
    loss_like,
)

THETA = [0.3, 0.6, -1.2, 0.8, 0.5, 1.7, -0.4, 0.9]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("cross_entropy", CrossEntropyLoss), ("baikal", BaikalLoss), ("gce", GCELoss), ("nce_rce", NCERCELoss)],
)
def test_names(given, expected):
    assert type(as_loss(given)) is expected


@pytest.mark.parametrize("given", [THETA, tuple(THETA), torch.tensor(THETA, dtype=torch.float64)])
def test_theta(given):
    loss = as_loss(given)
    assert isinstance(loss, TaylorGLOLoss)
    assert loss.theta.tolist() == THETA
    assert as_loss(loss) is loss
    assert as_loss(torch.zeros(12)).order == 4


def test_torchs_cross_entropy_keeps_its_arguments():
    torchs = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5]), ignore_index=1, reduction="sum", label_smoothing=0.1)
    ours = as_loss(torchs)
    logits, target = torch.tensor([[0.1, 2.0, -1.0], [0.0, 1.0, 0.5]]), torch.tensor([2, 1])
    torch.testing.assert_close(ours(logits, target), torchs(logits, target))


def test_loss_like():
    original = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0]), ignore_index=7, reduction="sum", label_smoothing=0.1)
    for family, theta in (("taylorglo", THETA), ("gce", [0.5]), (SCELoss, [0.2, 2.0])):
        loss = loss_like(original, family, theta)
        assert loss.theta.tolist() == theta
        assert (loss.ignore_index, loss.reduction, loss.label_smoothing) == (7, "sum", 0.0)
        assert torch.equal(loss.weight, original.weight)
        loss.weight.zero_()
        assert original.weight.tolist() == [1.0, 2.0]
    assert loss_like(object(), "mae", []).reduction == "mean"
    assert loss_like(original, "logit_adjustment", [1.0], priors=[3, 1]).priors.tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match=r"No family of losses is called 'nonsense'; known: .*gce"):
        loss_like(original, "nonsense", [])
