"""The polynomial as pure functions."""

import pytest
import torch

from tglo_lightning.losses import functional as fn

ORDERS = [2, 3, 4, 5]
# Section by section of the definition, in the order of the papers
TERMS_3 = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sizes():
    assert [fn.num_parameters(order) for order in ORDERS] == [5, 8, 12, 17]
    assert [fn.order_of([0.0] * size) for size in (5, 8, 12, 17)] == ORDERS
    assert list(fn.terms(3)) == TERMS_3
    for order in ORDERS:
        assert len(fn.terms(order)) == fn.num_parameters(order) - 2
    for size in (0, 1, 2, 3, 4, 6, 7, 9):
        with pytest.raises(ValueError, match=f"got {size}"):
            fn.order_of([0.0] * size)


@pytest.mark.parametrize("order", ORDERS)
def test_f_is_the_sum_of_its_terms(order):
    theta, y, h = draw(fn.num_parameters(order)), draw(6, 1, seed=1), draw(7, seed=2).sigmoid()
    expected = sum(
        c * (y - theta[0]) ** a * (h - theta[1]) ** b for (a, b), c in zip(fn.terms(order), theta[2:], strict=True)
    )
    torch.testing.assert_close(fn.taylor_f(theta, y, h), expected)


@pytest.mark.parametrize("order", ORDERS)
def test_gamma_is_the_derivative(order):
    theta, y, h = draw(fn.num_parameters(order)), draw(7, seed=1), draw(7, seed=2).sigmoid().requires_grad_()
    (expected,) = torch.autograd.grad(fn.taylor_f(theta, y, h).sum(), h)
    torch.testing.assert_close(fn.taylor_gamma(theta, y, h), expected)


@pytest.mark.parametrize("order", ORDERS)
def test_batches_of_theta(order):
    theta, y, h = draw(3, 2, fn.num_parameters(order)), draw(2, 7, seed=1), draw(7, seed=2)
    for function in (fn.taylor_f, fn.taylor_gamma):
        together = function(theta, y, h)
        assert together.shape == (3, 2, 7)
        for i in range(3):
            for j in range(2):
                torch.testing.assert_close(together[i, j], function(theta[i, j], y[j], h))


@pytest.mark.parametrize("order", ORDERS)
def test_expanded(order):
    """The same polynomial in powers of ``x``, out of tensors and out of numbers."""
    coefficients, x, centre = draw(order + 1), draw(7, seed=1), draw(1, seed=2)
    expected = sum(c * (x - centre) ** m for m, c in enumerate(coefficients))
    of_tensors = fn.expanded(coefficients.unbind(), centre)
    of_numbers = fn.expanded(coefficients.tolist(), centre.item())
    for found in (of_tensors, of_numbers):
        torch.testing.assert_close(fn.horner(found, x), expected)


def test_formula():
    assert fn.formula([0.0] * 8) == "0"
    assert fn.formula([0.0, 0.0, -1.0, 0.0, 0.5, 0.0, 0.0, 2.0]) == "-1 h + 0.5 h^3 + 2 y^2 h"
    assert fn.formula([-0.25, 0.5, 0.0, 0.0, 0.0, 0.0, -3.0, 0.0]) == "-3 (y + 0.25) (h - 0.5)^2"
    assert fn.formula(torch.tensor([0.0, 0.0, 1.23456789, 0.0, 0.0]), digits=3) == "1.23 h"
