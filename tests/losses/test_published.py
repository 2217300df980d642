"""Losses by name: published parameters, and expansions of cross-entropy that are really expansions."""

import pytest
import torch

from tglo_lightning.losses import TaylorGLOLoss, as_loss, cross_entropy_expansion, published_theta
from tglo_lightning.losses.functional import num_parameters, taylor_f, taylor_gamma, terms
from tglo_lightning.losses.published import PUBLISHED_NAMES, published_name
from tglo_lightning.theory import trainability

ORDERS = range(2, 11)


def _taylor(order):
    return torch.tensor(cross_entropy_expansion(order), dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_names_are_losses_that_train(name):
    loss = as_loss(name)
    assert isinstance(loss, TaylorGLOLoss)
    assert loss.theta.tolist() == published_theta(name)
    assert published_name(published_theta(name)) == name
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss(logits, torch.arange(4)).backward()
    assert logits.grad.abs().sum() > 0
    assert bool(trainability(loss, 10).trainable)


def test_unknown_names_are_told_the_known():
    with pytest.raises(ValueError, match=r"'mnist'; known: mnist_published, .*cross_entropy_10"):
        published_theta("mnist")
    with pytest.raises(ValueError, match=r"baikal.*cross_entropy.*mnist_published"):
        as_loss("cross_entropy_11")
    assert published_name([0.0] * 8) is None


@pytest.mark.parametrize(("order", "error"), [(1, ValueError), (0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_orders_out_of_range(order, error):
    with pytest.raises(error, match="order"):
        cross_entropy_expansion(order)


@pytest.mark.parametrize("order", ORDERS)
def test_coefficients_are_the_derivatives_of_cross_entropy(order):
    """theta_ab is the mixed derivative at the centre over a! b!, found by autograd; nothing beyond the order."""
    theta = cross_entropy_expansion(order)
    assert len(theta) == num_parameters(order)
    assert theta[:2] == [0.5, 0.5]
    for (a, b), value in zip(terms(order), theta[2:], strict=True):
        assert a + b <= order
        y = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        h = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        derivative = y * torch.log(h)
        for k in [y] * a + [h] * b:
            [derivative] = torch.autograd.grad(derivative, k, create_graph=True, allow_unused=True)
            if derivative is None or not derivative.requires_grad:
                break
        expected = 0.0 if derivative is None or a > 1 else float(derivative.detach())
        scale = float(torch.lgamma(torch.tensor(a + 1.0)).exp() * torch.lgamma(torch.tensor(b + 1.0)).exp())
        assert value == pytest.approx(expected / scale, rel=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_error_near_the_centre_shrinks_with_the_power_of_the_order(order):
    """Halving the distance to the centre divides the error by 2^(order + 1): all terms up to the order are there."""
    directions = torch.linspace(0, 6.2, 13, dtype=torch.float64)
    centre = 0.5 * torch.log(torch.tensor(0.5, dtype=torch.float64))
    errors = []
    for radius in (0.16, 0.08):
        y, h = 0.5 + radius * directions.cos(), 0.5 + radius * directions.sin()
        # terms without h, which the family leaves out, are the value at h = 1/2
        exact = y * torch.log(h) - y * torch.log(torch.tensor(0.5, dtype=torch.float64))
        errors.append(float((taylor_f(_taylor(order), y, h) - exact).abs().max()))
    assert errors[1] < errors[0] < abs(float(centre))
    assert errors[0] / errors[1] == pytest.approx(2 ** (order + 1), rel=0.35)


def test_gamma_tends_to_that_of_cross_entropy():
    h = torch.linspace(0.25, 0.75, 11, dtype=torch.float64)
    gaps = [float((taylor_gamma(_taylor(order), 1.0, h) - 1 / h).abs().max()) for order in ORDERS]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.02
