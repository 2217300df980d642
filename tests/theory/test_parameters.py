import pytest
import torch

from tglo_lightning import theory
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.losses.functional import num_parameters, order_of

ORDERS = (2, 3, 4, 5)
LOGITS = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
TARGET = torch.arange(8) % 5


def random_theta(order, *shape):
    generator = torch.Generator().manual_seed(order)
    return 1.2 * torch.randn(*shape, num_parameters(order), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("order", ORDERS)
def test_coefficients_spell_out_gamma(order):
    theta = random_theta(order, 3)
    h, y = torch.rand(2, 3, 6, dtype=torch.float64).unbind()
    named = theory.coefficients(theta)
    assert len(named) == order * (order + 1) // 2
    total = sum(c[:, None] * h ** name.count("h") * y ** name.count("y") for name, c in named.items())
    torch.testing.assert_close(total, theory.gamma(theta, h, y), rtol=1e-9, atol=1e-9)


def test_names_at_order_4():
    expected = ["c_1", "c_h", "c_hh", "c_hhh", "c_hhy", "c_hy", "c_hyy", "c_y", "c_yy", "c_yyy"]
    assert list(theory.coefficients([0.0] * 12)) == expected


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.9])
def test_label_smoothing_is_inside_the_family(order, alpha):
    theta = random_theta(order)
    smoothing = TaylorGLOLoss(theta, order=order, label_smoothing=alpha)
    plain = TaylorGLOLoss(theory.label_smoothed(theta, alpha, 5), order=order)
    torch.testing.assert_close(plain(LOGITS, TARGET), smoothing(LOGITS, TARGET), rtol=1e-9, atol=1e-9)
    mine, theirs = (theory.logit_velocity(loss, LOGITS, TARGET) for loss in (plain, smoothing))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_minimal_parameters_give_the_same_velocity(order, alpha):
    theta = random_theta(order, 4)
    if alpha:
        theta = theory.label_smoothed(theta, alpha, 5)
    minimal = theory.to_minimal(theta)
    assert minimal.shape == (4, 2 * (order - 1))
    back = theory.from_minimal(minimal)
    assert order_of(back) == order
    assert not back[:, :2].any()
    mine, theirs = (theory.logit_velocity(each[:, None], LOGITS, TARGET) for each in (back, theta))
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
    for wanted, got in zip(theory.trainability(theta, 5)[1:3], theory.trainability(back, 5)[1:3], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("order", ORDERS)
def test_from_minimal_is_inverted_by_to_minimal(order):
    c = torch.randn(3, 2 * (order - 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(theory.to_minimal(theory.from_minimal(c)), c)


def test_minimal_parameters_at_order_3():
    theta = random_theta(3)
    c = theory.coefficients(theta)
    expected = torch.stack([c["c_h"], c["c_hh"], c["c_hy"], c["c_y"] + c["c_yy"]])
    torch.testing.assert_close(theory.to_minimal(theta), expected)
    torch.testing.assert_close(
        theory.from_minimal([2.0, 3.0, 4.0, 5.0]), torch.tensor([0.0, 0, 0, 1, 1, 5, 2, 0], dtype=torch.float64)
    )


@pytest.mark.parametrize(("order", "exact"), [(2, True), (3, False)])
def test_to_minimal_speaks_of_hard_labels(order, exact):
    """With smoothed labels of a theta of order 3 or more one smooths first, and then takes the minimal parameters."""
    theta = random_theta(order)
    careless = TaylorGLOLoss(theory.from_minimal(theory.to_minimal(theta)), order=order, label_smoothing=0.3)
    smoothing = TaylorGLOLoss(theta, order=order, label_smoothing=0.3)
    mine, theirs = (theory.logit_velocity(loss, LOGITS, TARGET) for loss in (careless, smoothing))
    assert torch.allclose(mine, theirs, atol=1e-9) is exact


def test_differentiable_and_batched_under_vmap():
    theta = random_theta(3, 4).requires_grad_()
    for function in (theory.to_minimal, lambda t: theory.label_smoothed(t, 0.1, 3)):
        assert torch.autograd.gradcheck(function, (theta,))
        torch.testing.assert_close(torch.func.vmap(function)(theta), function(theta))
    c = torch.rand(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(theory.from_minimal, (c,))
    torch.testing.assert_close(torch.func.vmap(theory.from_minimal)(c), theory.from_minimal(c))


def test_bad_input_is_refused():
    for c in ([], [1.0], [1.0] * 3, torch.tensor(1.0)):
        with pytest.raises(ValueError, match="2, 4, 6, 8"):
            theory.from_minimal(c)
    for alpha in (-0.1, 1.0):
        with pytest.raises(ValueError, match="alpha"):
            theory.label_smoothed([0.0] * 8, alpha, 3)
    with pytest.raises(ValueError, match="5, 8, 12"):
        theory.coefficients([0.0] * 6)
    with pytest.raises(TypeError, match="no `theta`"):
        theory.to_minimal("cross_entropy")
