"""Smoothed cross-entropy with a factor, and the losses that a theta stands for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tglo_lightning.losses import SmoothedCrossEntropyLoss, TaylorGLOLoss, loss_formula, loss_like
from tglo_lightning.search.space import Space, feasibility
from tglo_lightning.theory import equilibria


@pytest.mark.parametrize("options", [{}, {"weight": torch.rand(5)}, {"ignore_index": 2}, {"reduction": "sum"}])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_equals_torch(options, alpha, soft):
    logits = torch.randn(7, 5, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randn(7, 5, 2).softmax(1).double() if soft else torch.randint(5, (7, 2))
    options = {k: v.double() if k == "weight" else v for k, v in options.items() if not (soft and k == "ignore_index")}
    ours = SmoothedCrossEntropyLoss((2.5, alpha), **options)(logits, target)
    theirs = 2.5 * F.cross_entropy(logits, target, label_smoothing=alpha, **options)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (ours, theirs)))


def test_a_population_is_one_batched_buffer():
    loss = SmoothedCrossEntropyLoss()
    thetas = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.5, 0.4]], dtype=torch.float64)
    logits, target = torch.randn(6, 4), torch.randint(4, (6,))

    def value(theta):
        return torch.func.functional_call(loss, {"theta": theta}, (logits, target))

    expected = [SmoothedCrossEntropyLoss(theta)(logits, target) for theta in thetas]
    torch.testing.assert_close(torch.func.vmap(value)(thetas), torch.stack(expected))


def test_theory_sees_the_smoothing():
    assert equilibria(SmoothedCrossEntropyLoss((3.0, 0.2)), 10) == pytest.approx([0.18])


@pytest.mark.parametrize("theta", [(0.0, 0.1), (1.0, 1.5), (1.0, -0.1), (1.0,), (float("nan"), 0.1)])
def test_theta_out_of_range(theta):
    with pytest.raises(ValueError, match="`theta` must be a factor above 0 and a smoothing"):
        SmoothedCrossEntropyLoss(theta)


def test_loss_like_takes_the_options_over():
    original = nn.CrossEntropyLoss(weight=torch.rand(3), ignore_index=1, reduction="sum", label_smoothing=0.3)
    for theta, kind in (((2.0, 0.1), SmoothedCrossEntropyLoss), ([0.0] * 8, TaylorGLOLoss)):
        loss = loss_like(original, theta)
        assert type(loss) is kind
        assert (loss.ignore_index, loss.reduction) == (1, "sum")
        assert torch.equal(loss.weight, original.weight)
    assert loss_formula((2.0, 0.1)) == "2 y log(h), labels smoothed by 0.1"


def test_search_space_starts_at_plain_smoothing():
    space = Space("smoothed_ce", 3)
    assert space.dimension == 2
    assert space.thetas([[0.0, 0.0]])[0] == pytest.approx([1.0, 0.1])
    assert feasibility("exact", 10)(space.thetas([[5.0, -3.0]])) == [True]
