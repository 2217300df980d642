import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from tglo_lightning import theory
from tglo_lightning.losses import (
    FAMILIES,
    BaikalLoss,
    ClassWeightedLoss,
    CrossEntropyLoss,
    SeparableLoss,
    TaylorGLOLoss,
)
from tglo_lightning.losses.functional import num_parameters, taylor_f

WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.3], dtype=torch.float64)


class ByAutograd(SeparableLoss):
    """A TaylorGLO loss known only by its f."""

    def __init__(self, theta):
        super().__init__()
        self.parameters_of_f = theta

    def f(self, y, h):
        return taylor_f(self.parameters_of_f, y, h)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KNOWN = sorted(
    name
    for name, family in FAMILIES.items()
    if issubclass(family, SeparableLoss) and family.__module__.startswith("tglo_lightning.")
)
LOSSES = [
    *(FAMILIES[name]() for name in KNOWN if name not in ("taylorglo", "class_weights")),
    ClassWeightedLoss(0.7, priors=[4, 3, 2, 1]),
    CrossEntropyLoss(label_smoothing=0.2),
    BaikalLoss(label_smoothing=0.1, weight=WEIGHT),
    CrossEntropyLoss(weight=WEIGHT),
    nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.3),
    *(TaylorGLOLoss(1.2 * normal(num_parameters(order), seed=order), order=order) for order in (2, 3, 4, 5)),
    TaylorGLOLoss(normal(8), weight=WEIGHT),
    TaylorGLOLoss(normal(8), label_smoothing=0.2, weight=WEIGHT),
]


def summed(loss, logits, target):
    """Sum of the per-sample losses, whatever the reduction of the loss says."""
    loss.reduction, before = "sum", loss.reduction
    try:
        return loss(logits, target)
    finally:
        loss.reduction = before


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_velocity_is_the_negative_gradient_of_the_loss(loss, soft):
    logits = (2 * normal(6, 4)).requires_grad_()
    target = normal(6, 4, seed=1).softmax(-1) if soft else torch.tensor([0, 1, 2, 3, 0, 1])
    (gradient,) = torch.autograd.grad(summed(loss, logits, target), logits)
    velocity = theory.logit_velocity(loss, logits.detach(), target)
    torch.testing.assert_close(velocity, -gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(velocity.sum(-1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-9)
    index = target.argmax(-1) if soft else target
    pull = theory.attraction(loss, logits.detach(), target)
    torch.testing.assert_close(pull, velocity.gather(1, index[:, None])[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_entropy_rate_is_the_slope_of_the_entropy_along_the_flow(loss):
    logits, target = normal(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    velocity = theory.logit_velocity(loss, logits, target)

    def entropy(z):
        return -(z.softmax(-1) * z.log_softmax(-1)).sum(-1)

    _, slope = torch.func.jvp(entropy, (logits,), (velocity,))
    torch.testing.assert_close(theory.entropy_rate(loss, logits, target), slope, rtol=1e-9, atol=1e-9)


def test_cross_entropy_by_hand():
    logits, target = normal(5, 3), torch.tensor([0, 2, 1, 1, 0])
    h = logits.softmax(-1)
    y = nn.functional.one_hot(target, 3).double()
    torch.testing.assert_close(theory.logit_velocity("cross_entropy", logits, target), y - h)
    torch.testing.assert_close(theory.attraction(nn.CrossEntropyLoss(), logits, target), 1 - (h * y).sum(-1))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("cross_entropy", lambda y, h: y / h),
        ("brier", lambda y, h: 2 * (y - h)),
        ("baikal", lambda y, h: 1 / h + y / h**2),
    ],
)
def test_gamma_of_the_classic_losses(name, rule):
    h, y = torch.rand(7, 3, dtype=torch.float64) + 0.01, torch.rand(7, 3, dtype=torch.float64)
    torch.testing.assert_close(theory.gamma(name, h, y), rule(y, h))
    assert float(theory.gamma(name, 0.25, 1.0)) == pytest.approx(rule(1.0, 0.25))


def test_the_autograd_path_agrees_with_the_formula():
    theta = 1.2 * normal(8)
    by_f, logits, target = ByAutograd(theta), normal(5, 3), torch.tensor([0, 1, 2, 0, 1])
    for function in (theory.logit_velocity, theory.attraction, theory.entropy_rate):
        torch.testing.assert_close(function(by_f, logits, target), function(theta, logits, target))
    torch.testing.assert_close(
        torch.stack(theory.trainability(by_f, 10)[:3]), torch.stack(theory.trainability(theta, 10)[:3])
    )
    eps = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(theory.attraction_curve(by_f, 10, eps), theory.attraction_curve(theta, 10, eps))
    assert theory.equilibria(by_f, 10) == pytest.approx(theory.equilibria(theta, 10), abs=1e-9)


def test_differentiable_in_logits_and_theta():
    theta, logits = normal(8).requires_grad_(), normal(3, 4).requires_grad_()
    target = torch.tensor([0, 3, 1])
    for function in (theory.logit_velocity, theory.attraction, theory.entropy_rate):
        assert torch.autograd.gradcheck(lambda t, z, run=function: run(t, z, target), (theta, logits))
    zero = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: torch.stack(list(theory.coefficients(t).values())), (zero,))
    assert torch.autograd.gradcheck(lambda t: torch.stack(theory.trainability(t, 3)[:3]), (theta,))


def test_a_population_of_losses_under_vmap_and_in_one_batch():
    thetas, logits, target = normal(4, 12), normal(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    for function in (theory.logit_velocity, theory.attraction, theory.entropy_rate):
        mapped = torch.func.vmap(lambda t, run=function: run(t, logits, target))(thetas)
        torch.testing.assert_close(mapped, function(thetas[:, None], logits, target))
        by_sample = torch.func.vmap(lambda z, t, run=function: run(thetas[0], z, t))(logits, target)
        torch.testing.assert_close(by_sample, mapped[0])
    told = torch.func.vmap(lambda t: theory.trainability(t, 3))(thetas)
    assert told.stable.dtype == torch.bool
    for mine, batched in zip(told, theory.trainability(thetas, 3), strict=True):
        torch.testing.assert_close(mine, batched)


@pytest.mark.parametrize("loss", ["cross_entropy", "brier", "baikal", [1.0] * 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_extreme_logits(loss, dtype):
    logits = torch.tensor([[200.0, 0.0, -200.0]] * 3, dtype=dtype)
    target = torch.tensor([0, 1, 2])
    for function in (theory.logit_velocity, theory.attraction, theory.entropy_rate):
        assert torch.isfinite(function(loss, logits, target)).all(), function.__name__
    if loss == "cross_entropy":
        assert theory.attraction(loss, logits, target).tolist() == pytest.approx([0, 1, 1])


def test_the_sign_of_attraction_survives_where_the_target_rounds_to_one():
    repels = torch.tensor([0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    pull = theory.attraction(repels, torch.tensor([18.0, 0.0, 0.0]), 0)
    assert float(pull) == pytest.approx(float(theory.attraction(repels.double(), [18.0, 0.0, 0.0], 0)), rel=1e-5)
    assert float(pull) < 0


@pytest.mark.parametrize("loss", [*(loss for loss in LOSSES if loss.weight is None), [0.3] * 8], ids=str)
def test_a_masked_class_has_no_part(loss):
    logits, target = normal(6, 4), torch.tensor([0, 1, 2, 2, 0, 1])
    masked, tiny = logits.clone(), logits.clone()
    masked[:, 3], tiny[:, 3] = -torch.inf, -900.0
    if not isinstance(loss, list):
        z = masked.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(summed(loss, z, target), z)
        torch.testing.assert_close(theory.logit_velocity(loss, masked, target), -gradient, rtol=1e-9, atol=1e-9)
    for function in (theory.attraction, theory.entropy_rate):
        got = function(loss, masked, target)
        if loss.__class__ is BaikalLoss:  # a class without hope would still push
            torch.testing.assert_close(got, function(loss, logits[:, :3], target))
        elif not getattr(loss, "label_smoothing", 0):
            torch.testing.assert_close(got, function(loss, tiny, target))
        assert got.isfinite().all()


def test_ignored_samples_do_not_move():
    loss = nn.CrossEntropyLoss(ignore_index=-100)
    pull = theory.attraction(loss, normal(2, 3), torch.tensor([-100, 1]))
    assert float(pull[0]) == 0
    assert float(pull[1]) > 0


def test_effective_number_of_parameters():
    """Hard and smoothed labels feel 2 (K - 1) directions of theta, soft targets K (K + 1) / 2 - 1."""

    def rank(order, target, alpha=0.0):
        theta, logits = normal(num_parameters(order), seed=order), 1.5 * normal(60, 4, seed=1)

        def velocity(t):
            if alpha:
                t = theory.label_smoothed(t, alpha, 4)
            return theory.logit_velocity(t, logits, target)

        singular = torch.linalg.svdvals(jacobian(velocity, theta).reshape(-1, num_parameters(order)))
        return int((singular > 1e-9 * singular[0]).sum())

    hard = torch.arange(60) % 4
    soft = (2 * normal(60, 4, seed=2)).softmax(-1)
    orders = (2, 3, 4, 5)
    assert [rank(order, hard) for order in orders] == [2, 4, 6, 8]
    assert [rank(order, hard, alpha=0.1) for order in orders] == [2, 4, 6, 8]
    assert [rank(order, soft) for order in orders] == [2, 5, 9, 14]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0] * 7, normal(2, 3), [0, 1]), "5, 8, 12, 17"),
        (("nonsense", normal(2, 3), [0, 1]), "Unknown loss"),
        (("baikal", normal(2, 3), [0, 3]), r"0 \.\. 2"),
        (("baikal", normal(2, 3), [-1, 0]), r"0 \.\. 2"),
        (("baikal", normal(2, 3), torch.rand(2)), "class probabilities"),
        (("baikal", torch.tensor(1.0), 0), "shape"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        theory.logit_velocity(*arguments)
    with pytest.raises(TypeError, match="family"):
        theory.logit_velocity(nn.L1Loss(), normal(2, 3), [0, 1])


@pytest.mark.parametrize("name", ["nce_rce", "logit_adjustment"])
def test_a_loss_that_is_not_separable_says_so(name):
    for function in (theory.explain, theory.trainability, theory.equilibria, theory.zero_error, theory.pull_of):
        with pytest.raises(TypeError, match="is not separable"):
            function(name, 10)
    with pytest.raises(TypeError, match="is not separable"):
        theory.attraction(FAMILIES[name](), normal(2, 3), [0, 1])
