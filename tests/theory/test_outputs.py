"""Slopes of binary and regression losses beside those of cross-entropy and MSE."""

import pytest
import torch

from tglo_lightning.losses import (
    FAMILIES,
    BarronLoss,
    BinaryFocalLoss,
    BinarySmoothingLoss,
    BinaryTaylorLoss,
    HuberLoss,
)
from tglo_lightning.theory import explain_pointwise, relative_slope, trainability

Z = torch.linspace(-4, 4, 8, dtype=torch.float64)


def test_the_common_losses_have_1():
    for loss, target in ((BinaryFocalLoss(0.0), torch.ones_like(Z)), (BarronLoss(2.0), torch.full_like(Z, 0.1))):
        torch.testing.assert_close(relative_slope(loss, Z, target), torch.ones_like(Z))


def test_pull_and_weight_by_hand():
    h = torch.sigmoid(Z)
    focal = (1 - h) * (1 - h - 2 * h * h.log())  # of (1 - h)^2 log h, by h (1 - h)
    torch.testing.assert_close(relative_slope(BinaryFocalLoss(2.0), Z, torch.ones_like(Z)), focal)
    weight = torch.where(Z.abs() < 1.5, 0.5, 1.5 / (2 * Z.abs()))
    torch.testing.assert_close(relative_slope(HuberLoss(1.5), Z, torch.zeros_like(Z)), weight)
    weighted = BinaryFocalLoss(2.0, weight=torch.tensor(3.0), pos_weight=torch.tensor(2.0))
    torch.testing.assert_close(relative_slope(weighted, Z, torch.ones_like(Z)), focal)


def test_where_outputs_settle():
    text = explain_pointwise(BinarySmoothingLoss(0.1))
    for side in ("positive", "negative"):
        assert f"A {side} target settles at p = 0.95" in text
    assert "No equilibrium" in explain_pointwise(BinaryFocalLoss())
    one_side = explain_pointwise(BinaryTaylorLoss(p1=-0.1))
    assert "A positive target settles at p = 0.9" in one_side
    assert "A negative target" not in one_side


@pytest.mark.parametrize("p3", [1.0, -5.9, -6.1])
def test_trainable_as_the_loss_says(p3):
    loss = BinaryTaylorLoss(p3=p3)
    assert f"Trainable: {'yes' if loss.trainable else 'no'}" in explain_pointwise(loss)
    assert loss.trainable == (p3 > -6)


def test_two_classes_and_a_logit_are_pulled_alike():
    """With equal sides a logit is the difference of the logits of two classes."""
    ratio = relative_slope(BinaryTaylorLoss(), torch.zeros(1).double(), torch.ones(1).double())
    expansion = [0, 0, 0, 0, 0, 7 / 4, 0, 0]  # y (1 + 1/2 + 1/4) h, its slope at h = 1/2
    assert float(trainability(expansion, 2).B) / float(trainability("cross_entropy", 2).B) == pytest.approx(
        float(ratio)
    )


@pytest.mark.parametrize("name", [name for name, kind in FAMILIES.items() if kind.kind in ("binary", "regression")])
def test_every_family_is_explained(name):
    text = explain_pointwise(FAMILIES[name]())
    assert "nan" not in text
    assert max(map(len, text.splitlines())) <= 120
    assert "Not available" in text
