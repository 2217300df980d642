"""Pull, scale and shape: the worked values, their definitions, any order, and any separable loss."""

import json
from pathlib import Path

import pytest
import torch

from tglo_lightning import theory
from tglo_lightning.losses import GCELoss, TaylorGLOLoss

VECTORS = json.loads(Path(__file__).with_name("shape_vectors.json").read_text())
ORDERS = (2, 3, 4, 5)


def minimal(order, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 2 * (order - 1), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"n={case['num_classes']}")
def test_worked_values_to_1e_9(case):
    n, c = case["num_classes"], torch.tensor(case["c"], dtype=torch.float64)
    scale, t = theory.to_shape(c, n)
    assert float(scale) == pytest.approx(case["mean_pull"], rel=1e-9)
    assert float(theory.mean_pull(c, n)) == pytest.approx(case["mean_pull"], rel=1e-9)
    assert t.tolist() == pytest.approx(case["shape"], rel=1e-9)
    outputs, expected = zip(*((float(h), r) for h, r in case["pull"].items()), strict=True)
    assert theory.pull(c, n, list(outputs)).tolist() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(theory.from_shape(scale, t, n), c, rtol=1e-9, atol=1e-9)
    if "cross_entropy_twin" in case:
        assert theory.cross_entropy_twin(n).tolist() == pytest.approx(case["cross_entropy_twin"], rel=1e-9)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_definitions_at_any_order(order, n):
    c = minimal(order, 4)
    theta = theory.from_minimal(c)
    h = torch.linspace(1 / n, 1, 20001, dtype=torch.float64)
    r = h * theory.attraction_curve(theta, n, 1 - h)
    torch.testing.assert_close(theory.pull(c, n, h), r, rtol=1e-9, atol=1e-9)
    scale, t = theory.to_shape(c, n)
    torch.testing.assert_close(scale, torch.trapezoid(r, h) / (1 - 1 / n), rtol=1e-6, atol=1e-6)
    told = theory.trainability(theta, n)
    nodes = torch.linspace(1 / n, 1, order, dtype=torch.float64)[1:]
    by_curve = theory.attraction_curve(theta, n, 1 - nodes) / told.B[:, None]
    torch.testing.assert_close(t[:, : order - 1], by_curve, rtol=1e-7, atol=1e-7)
    if order >= 3:
        torch.testing.assert_close(t[:, order - 1], -told.S / told.B, rtol=1e-7, atol=1e-7)
    if order >= 4:  # the second derivative of the label-averaged gamma, over 2 n B

        def average(p):
            return (theory.gamma(theta, p[:, None], 1.0) + (n - 1) * theory.gamma(theta, p[:, None], 0.0))[:, 0].sum()

        start = torch.full((4,), 1 / n, dtype=torch.float64)
        second = torch.func.hessian(average)(start).diagonal() / n
        torch.testing.assert_close(t[:, order], second / (2 * n * told.B), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_shape_and_scale_are_the_whole_loss(order, n):
    c = minimal(order, 2, 3)
    scale, t = theory.to_shape(c, n)
    assert (scale.shape, t.shape) == ((2, 3), (2, 3, 2 * order - 3))
    back = theory.from_shape(scale, t, n)
    if n > 2:
        torch.testing.assert_close(back, c, rtol=1e-7, atol=1e-7)
    logits = torch.randn(5, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = torch.arange(5) % n
    for i in range(3):  # with two classes other numbers, and what the weights feel is the same
        one, other = (theory.logit_velocity(theory.from_minimal(each[0, i]), logits, target) for each in (back, c))
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(theory.to_shape(-3 * c, n)[1], t)


def test_two_classes_have_one_shape_number_at_order_3():
    _, t = theory.to_shape(minimal(3, 5), 2)
    torch.testing.assert_close(t[:, 0], (1 + t[:, 1]) / 2)
    torch.testing.assert_close(t[:, 2], 1 - t[:, 1])


@pytest.mark.parametrize("n", [3, 10, 1000])
def test_shapes_of_cross_entropy_and_mae(n):
    mae = theory.pull_of("mae", n)
    assert mae.shape == pytest.approx((1, 1, 0))
    assert mae.mean == pytest.approx((1 + 1 / n) / 2)
    told = theory.pull_of("cross_entropy", n)
    assert told.shape == pytest.approx((2 / (n + 1), 1 / n, 1))
    assert (told.mean, told.largest) == pytest.approx((1, 1))
    assert theory.to_shape([0.0, 0.0, 0.0, 1.0], n)[1].tolist() == pytest.approx([1, 1, 0])


@pytest.mark.parametrize("n", [3, 10, 100])
def test_pull_of_any_loss(n):
    c = minimal(3, seed=2)
    told, (scale, t) = theory.pull_of(theory.from_minimal(c), n), theory.to_shape(c, n)
    assert told.mean == pytest.approx(float(scale), rel=1e-9)
    assert told.shape == pytest.approx(tuple(t.tolist()), rel=1e-9)
    h = torch.linspace(1 / n, 1, 1000, dtype=torch.float64)
    assert told.largest == pytest.approx(float(theory.pull(c, n, h).max()), abs=1e-4)
    # r = h^q for GCE
    assert theory.pull_of(GCELoss(0.7), n).mean == pytest.approx((1 - n**-1.7) / 1.7 / (1 - 1 / n), rel=1e-9)
    # 2 h eps n/(n - 1) for the Brier score
    far = 1 - 1 / n
    assert theory.pull_of("brier", n).mean == pytest.approx(2 / far * (far / 2 - far**2 / 3), rel=1e-9)
    for repelling in ("baikal", "smoothing"):
        assert theory.pull_of(repelling, n).mean == -torch.inf


def test_the_twin_pulls_like_cross_entropy():
    for n in (3, 10, 19):
        c = theory.cross_entropy_twin(n)
        nodes = torch.tensor([1 / n, (1 + 1 / n) / 2, 1.0], dtype=torch.float64)
        torch.testing.assert_close(theory.pull(c, n, nodes), torch.ones(3, dtype=torch.float64))
    for n in (20, 1000):
        c = theory.cross_entropy_twin(n).requires_grad_()
        h = torch.linspace(1 / n, 1, 20001, dtype=torch.float64)
        error = (theory.pull(c, n, h) - 1).square().mean()
        assert error < 0.1
        (slope,) = torch.autograd.grad(error, c)  # stationary but where -S/n would change
        along = torch.tensor([1, 2 / n, 1 / n, 0], dtype=torch.float64)
        across = slope - along * (slope @ along) / (along @ along)
        assert across.abs().max() < 1e-3 * c.detach().abs().max()
    for n in (3, 10, 50):
        assert -theory.trainability(theory.from_minimal(theory.cross_entropy_twin(n)), n).S / n == pytest.approx(1)
        assert theory.cross_entropy_twin(n, order=4).shape == (6,)


def test_normalized_has_mean_pull_one():
    c = torch.tensor([[-5.0, 8.0, -2.0, 3.0], [0.0, 0.0, 0.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(theory.mean_pull(theory.normalized(c, 7), 7), torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="positive mean pull, got"):
        theory.normalized(-c, 7)


def test_differentiable_and_batched_under_vmap():
    t = (1 + 0.2 * minimal(4, 5, seed=1)[:, :5]).requires_grad_()
    c = theory.from_shape(2.0, t, 5).detach().requires_grad_()
    h = torch.rand(3, dtype=torch.float64, requires_grad=True)
    functions = [
        (lambda c: theory.mean_pull(c, 5), c),
        (lambda c: torch.cat([x.reshape(*c.shape[:-1], -1) for x in theory.to_shape(c, 5)], -1), c),
        (lambda c: theory.pull(c, 5, h), c),
        (lambda t: theory.from_shape(2.0, t, 5), t),
        (lambda c: theory.normalized(c, 5), c),
    ]
    for function, argument in functions:
        assert torch.autograd.gradcheck(function, (argument,))
        torch.testing.assert_close(torch.func.vmap(function)(argument), function(argument))
    assert torch.autograd.gradcheck(lambda h: theory.pull(c, 5, h), (h,))
    assert theory.pull(c.float(), 5, 0.5).dtype == torch.float32


def test_a_loss_over_its_mean_pull_takes_cross_entropys_step():
    c = theory.normalized([-5.746, 7.929, -2.393, 3.096], 10)
    h = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.9 + 0.1
    logits = torch.cat([(9 * h / (1 - h)).log()[:, None], torch.zeros(4000, 9, dtype=torch.float64)], dim=1)
    pull = theory.attraction(TaylorGLOLoss(theory.from_minimal(c)), logits, torch.zeros(4000, dtype=torch.long))
    assert float((pull / (1 - h)).mean()) == pytest.approx(1, abs=0.05)


def test_bad_input_is_rejected():
    for c in ([1.0], [1.0] * 3, torch.tensor(1.0)):
        with pytest.raises(ValueError, match="2, 4, 6, 8"):
            theory.mean_pull(c, 10)
    with pytest.raises(ValueError, match="1, 3, 5"):
        theory.from_shape(1.0, [1.0, 2.0], 10)
    for function in (theory.mean_pull, theory.to_shape, theory.normalized, theory.pull_of):
        with pytest.raises(ValueError, match="at least 2, got 1"):
            function([1.0] * 8, 1)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        theory.cross_entropy_twin(1)
