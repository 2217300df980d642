import math

import pytest
import torch
from torch import nn

from tglo_lightning import theory
from tglo_lightning.losses import BaikalLoss, CrossEntropyLoss, SeparableLoss, TaylorGLOLoss
from tglo_lightning.losses.functional import num_parameters

EPS = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


def random_theta(order, seed):
    generator = torch.Generator().manual_seed(seed)
    return 1.2 * torch.randn(num_parameters(order), generator=generator, dtype=torch.float64)


def from_d(d, n=10):
    """A TaylorGLO loss of order 3 with D(eps) = d0 + d1 eps + d2 eps^2."""
    chh = d[2] / (1 - 1 / (n - 1) ** 2)
    return theory.from_minimal([0.0, chh, -d[1] - 2 * chh, d[0] + d[1] + chh])


def equal_non_targets(eps, n):
    """Logits with h_0 = 1 - eps and the others alike, shape (..., n)."""
    first = torch.log((1 - eps) * (n - 1) / eps)
    return torch.cat([first[..., None], torch.zeros(*eps.shape, n - 1, dtype=eps.dtype)], dim=-1)


@pytest.mark.parametrize("n", [2, 3, 10, 100])
@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        ("cross_entropy", lambda e, n: 1 / (1 - e)),
        ("brier", lambda e, n: 2 * e * n / (n - 1)),
        ("baikal", lambda e, n: 1 / (1 - e) + 1 / (1 - e) ** 2 - (n - 1) / e),
        (CrossEntropyLoss(label_smoothing=0.1), lambda e, n: (0.9 + 0.1 / n) / (1 - e) - 0.1 / n * (n - 1) / e),
    ],
    ids=["cross_entropy", "brier", "baikal", "smoothed"],
)
def test_curve_of_the_classic_losses(loss, by_hand, n):
    torch.testing.assert_close(theory.attraction_curve(loss, n, EPS), by_hand(EPS, n), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("loss", ["cross_entropy", "brier", "baikal", TaylorGLOLoss([0.3] * 8, label_smoothing=0.2)])
@pytest.mark.parametrize("n", [2, 5])
def test_attraction_and_entropy_rate_on_equal_non_targets(loss, n):
    d, target = theory.attraction_curve(loss, n, EPS), torch.zeros(len(EPS), dtype=torch.long)
    logits = equal_non_targets(EPS, n)
    torch.testing.assert_close(theory.attraction(loss, logits, target), EPS * (1 - EPS) * d, rtol=1e-9, atol=1e-9)
    rate = -((EPS * (1 - EPS)) ** 2) * d * n / (n - 1) * torch.log((1 - EPS) * (n - 1) / EPS)
    torch.testing.assert_close(theory.entropy_rate(loss, logits, target), rate, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_polynomial_is_the_difference_of_gamma(order, alpha):
    theta, n = random_theta(order, seed=1), 7
    loss = TaylorGLOLoss(theta, order=order, label_smoothing=alpha)
    on, off = 1 - alpha + alpha / n, alpha / n
    difference = theory.gamma(theta, 1 - EPS, on) - theory.gamma(theta, EPS / (n - 1), off)
    torch.testing.assert_close(theory.attraction_curve(loss, n, EPS), difference, rtol=1e-9, atol=1e-9)
    smoothed = theory.label_smoothed(theta, alpha, n)
    torch.testing.assert_close(theory.attraction_curve(smoothed, n, EPS), difference, rtol=1e-9, atol=1e-9)


def test_shapes_of_the_curve():
    thetas = torch.zeros(4, 5, 8)
    assert theory.attraction_curve(thetas, 3, 0.5).shape == (4, 5)
    assert theory.attraction_curve(thetas, 3, torch.zeros(2, 3)).shape == (4, 5, 2, 3)
    assert theory.attraction_curve([0.0] * 8, 3, [0.1, 0.2]).dtype == torch.float64
    assert theory.attraction_curve("baikal", 3, torch.tensor(0.5)).dtype == torch.float32


@pytest.mark.parametrize(
    ("loss", "value", "verdict"),
    [
        ("cross_entropy", 1.0, "attracts"),
        ("brier", 0.0, "neutral"),
        ("baikal", -math.inf, "repels"),
        (CrossEntropyLoss(label_smoothing=0.1), -math.inf, "repels"),
        ([0.0] * 8, 0.0, "neutral"),
        (from_d((-2.0, 1.0, 1.0)), -2.0, "repels"),
    ],
    ids=["cross_entropy", "brier", "baikal", "smoothed", "zero", "polynomial"],
)
def test_zero_error(loss, value, verdict):
    told = theory.zero_error(loss, 10)
    assert float(told.value) == pytest.approx(value)
    assert told.verdict == verdict


class MinusEntropy(SeparableLoss):
    """f(y, h) = y log h + h log h, whose gamma is infinite at 0 for want of a limit, not as 0/0."""

    def f(self, y, h):
        return (y + h) * torch.log(h)


def test_a_loss_known_only_by_its_f():
    assert theory.zero_error(MinusEntropy(), 3).value == math.inf
    assert theory.zero_error(MinusEntropy(), 3).verdict == "attracts"
    by_hand = 1 / (1 - EPS) + torch.log(1 - EPS) - torch.log(EPS / 2)
    torch.testing.assert_close(theory.attraction_curve(MinusEntropy(), 3, EPS), by_hand)


def test_curve_under_transforms():
    for loss in ("baikal", "cross_entropy", [0.3] * 8):
        mapped = torch.func.vmap(lambda e, loss=loss: theory.attraction_curve(loss, 4, e))(EPS)
        torch.testing.assert_close(mapped, theory.attraction_curve(loss, 4, EPS))
        slope = torch.func.grad(lambda e, loss=loss: theory.attraction_curve(loss, 4, e))(EPS[50])
        assert torch.isfinite(slope)


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_equilibria_of_the_classic_losses(n):
    assert theory.equilibria("cross_entropy", n) == []
    assert theory.equilibria("brier", n) == []
    for alpha in (1e-6, 0.1, 0.5, 1.0):
        for loss in (CrossEntropyLoss(label_smoothing=alpha), nn.CrossEntropyLoss(label_smoothing=alpha)):
            assert theory.equilibria(loss, n) == pytest.approx([alpha * (n - 1) / n], rel=1e-9)
    # (n - 1) (1 - e)^2 = e (2 - e) is n (1 - e)^2 = 1
    assert theory.equilibria("baikal", n) == pytest.approx([1 - n**-0.5], rel=1e-9)


@pytest.mark.parametrize(
    ("d", "expected"),
    [
        ((-0.5, 1.0, 0.0), [0.5]),
        ((0.5, -1.0, 0.0), []),  # unstable
        ((0.0, 0.0, 0.0), []),
        ((1.0, 0.0, 0.0), []),
        ((0.25, -1.0, 1.0), []),  # double root
        ((0.09, -0.6, 1.0), []),  # double root that is no binary fraction
        ((-0.25, 1.0, -1.0), []),
        ((0.06, -0.5, 1.0), [0.3]),  # roots 0.2 and 0.3
        ((-0.06, 0.5, -1.0), [0.2]),
        ((0.0, 1.0, 0.0), []),  # root at 0
        ((-1.0, 1.0, 0.0), []),  # root at 1
        ((0.0, -0.5, 1.0), [0.5]),
        ((-0.3, 1.0, 1e-18), [0.3]),
        ((-3e9, 1e10, 1e-5), [0.3]),
    ],
)
def test_equilibria_of_chosen_polynomials(d, expected):
    for n in (2, 10) if d[2] == 0 else (10,):
        chosen = from_d(d, n) if n > 2 else theory.from_minimal([0.0, 0.0, -d[1], d[0] + d[1]])
        assert theory.equilibria(chosen, n) == pytest.approx(expected, abs=1e-9)


def test_several_equilibria_at_order_5():
    # gamma(h, 1) = -(h - 0.2)(h - 0.4)(h - 0.6), gamma(h, 0) = 0: D falls in h, rises in eps at 0.8 and 0.4
    c = [0.0, 0.0, 0.0, 0.0, -1.0, 1.2, -0.44, 0.048]
    assert theory.equilibria(theory.from_minimal(c), 10) == pytest.approx([0.4, 0.8], abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_free_logits_settle_at_the_equilibrium(n):
    """Gradient descent on the loss itself, from either side, for random losses of orders 3 and 4, Baikal, smoothing."""
    losses = [TaylorGLOLoss(random_theta(order, seed), order=order) for order in (3, 4) for seed in range(40)]
    losses += [BaikalLoss(), CrossEntropyLoss(label_smoothing=0.2)]
    settled = 0
    for loss in losses:
        for eps in theory.equilibria(loss, n):
            near = torch.tensor([eps * 0.97, eps + 0.03 * (1 - eps)], dtype=torch.float64)
            slope = theory.attraction_curve(loss, n, near)
            if not (slope[0] < 0 < slope[1]) or not 0.01 < eps < 0.99:
                continue  # another root is too near for this start
            logits = equal_non_targets(near, n)
            rate = (
                eps * (1 - eps) * float(slope[1] - slope[0]) / float(near[1] - near[0]) * eps * (1 - eps) * n / (n - 1)
            )
            for _ in range(60):
                leaf = logits.clone().requires_grad_()
                total = loss(leaf, torch.zeros(2, dtype=torch.long)) * 2  # undo the mean
                logits = logits - 0.5 / rate * torch.autograd.grad(total, leaf)[0]
            reached = 1 - logits.softmax(-1)[:, 0]
            assert reached.tolist() == pytest.approx([eps, eps], abs=1e-6)
            settled += 1
    assert settled >= 10


def test_implied_label_smoothing_inverts_cross_entropy():
    (eps,) = theory.equilibria(CrossEntropyLoss(label_smoothing=0.15), 7)
    assert theory.implied(eps, 7) == pytest.approx((eps, 1 - eps, 0.15))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one loss"):
        theory.equilibria(torch.zeros(3, 8), 10)
    with pytest.raises(TypeError, match="no `theta`"):
        theory.attraction_coefficients("baikal", 10)
    for function in (theory.equilibria, theory.zero_error, theory.trainability, theory.attraction_coefficients):
        with pytest.raises(ValueError, match="at least 2, got 1"):
            function([0.0] * 8, 1)
        with pytest.raises(TypeError, match="int"):
            function([0.0] * 8, 2.0)
