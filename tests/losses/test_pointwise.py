"""Losses for binary targets and for regression beside their formulas, in float64."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from tglo_lightning.losses import FAMILIES, BarronLoss, BinaryTaylorLoss, HuberLoss, loss_like
from tglo_lightning.losses.registry import kind_of

Z = torch.linspace(-6, 6, 13, dtype=torch.float64).reshape(13, 1).repeat(1, 2)
Y = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(13, 1)


def taylor(y, h, p1, p2, p3, n1, n2, n3):
    m = 1 - h
    return y * (p1 * m + p2 * m**2 / 2 + p3 * m**3 / 3) + (1 - y) * (n1 * h + n2 * h**2 / 2 + n3 * h**3 / 3)


def focal(y, h, g):
    return -y * (1 - h) ** g * h.log() - (1 - y) * h**g * (1 - h).log()


def asymmetric(y, h, g_pos, g_neg, margin):
    h_m = (h - margin).clamp(min=0)
    return -y * (1 - h) ** g_pos * h.log() - (1 - y) * h_m**g_neg * (1 - h_m).log()


def smoothing(y, h, alpha):
    y = (1 - alpha) * y + alpha / 2
    return -y * h.log() - (1 - y) * (1 - h).log()


BINARY = {
    "binary_taylor": (taylor, (1.5, -0.5, 0.3, 0.7, 0.2, 1.1)),
    "binary_focal": (focal, (1.5,)),
    "asymmetric": (asymmetric, (0.5, 2.0, 0.1)),
    "binary_smoothing": (smoothing, (0.2,)),
}


@pytest.mark.parametrize("family", BINARY)
def test_binary_formulas(family):
    formula, theta = BINARY[family]
    z, again = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    values = FAMILIES[family].of(theta, reduction="none")(z, Y)
    expected = formula(Y, torch.sigmoid(again), *theta)
    torch.testing.assert_close(values, expected)
    for loss in (values, expected):
        loss.sum().backward()
    torch.testing.assert_close(z.grad, again.grad)


@pytest.mark.parametrize(("family", "theta"), [("binary_focal", (0.0,)), ("binary_smoothing", (0.0,))])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_with_torchs_weights(family, theta, reduction):
    weight, pos_weight = torch.tensor([0.5, 2.0], dtype=torch.float64), torch.tensor([3.0, 1.5], dtype=torch.float64)
    original = nn.BCEWithLogitsLoss(weight=weight, pos_weight=pos_weight, reduction=reduction)
    torch.testing.assert_close(loss_like(original, family, theta)(Z, Y), original(Z, Y))


def test_probabilities():
    loss = loss_like(nn.BCELoss(), "binary_focal", (0.0,))
    torch.testing.assert_close(loss(torch.sigmoid(Z), Y), F.binary_cross_entropy(torch.sigmoid(Z), Y))


def test_the_default_polynomial_is_the_expansion_of_cross_entropy():
    z = torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64, requires_grad=True)
    slopes = [
        torch.autograd.grad(loss(z, torch.ones_like(z)), z)[0]
        for loss in (BinaryTaylorLoss(reduction="sum"), nn.BCEWithLogitsLoss(reduction="sum"))
    ]
    missing = torch.sigmoid(-z.detach())
    torch.testing.assert_close(slopes[0] / slopes[1], 1 - missing**3)


@pytest.mark.parametrize("alpha", [2.0, 1.5, 1.0, 1e-5, 0.0, -2.0, -5.0])
def test_the_general_robust_loss(alpha):
    x, c = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True), 0.7
    u = (x / c) ** 2
    limits = {
        2.0: u / 2,
        1.0: (u + 1).sqrt() - 1,
        1e-5: torch.log(u / 2 + 1),
        0.0: torch.log(u / 2 + 1),
        -2.0: 2 * u / (u + 4),
    }
    rho = limits[alpha] if alpha in limits else abs(alpha - 2) / alpha * ((u / abs(alpha - 2) + 1) ** (alpha / 2) - 1)
    loss = BarronLoss(alpha, c, reduction="none")(x, torch.zeros_like(x))
    torch.testing.assert_close(loss, 2 * c**2 * rho, rtol=1e-4, atol=1e-6)
    slopes = [torch.autograd.grad(each.sum(), x, retain_graph=True)[0] for each in (loss, 2 * c**2 * rho)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)
    # Downhill to a residual of 0 from either side
    assert bool((slopes[0] * x >= 0).all())
    torch.testing.assert_close(loss, loss.flip(0))


def test_losses_of_torch_within_the_families():
    x, y = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul(3)
    torch.testing.assert_close(BarronLoss(2.0)(x, y), F.mse_loss(x, y))
    torch.testing.assert_close(HuberLoss(0.5)(x, y), F.huber_loss(x, y, delta=0.5))
    torch.testing.assert_close(HuberLoss(0.5)(x, y) / 0.5, F.smooth_l1_loss(x, y, beta=0.5))
    torch.testing.assert_close(HuberLoss(1e-9)(x, y) / 1e-9, F.l1_loss(x, y))


@pytest.mark.parametrize("name", [name for name, kind in FAMILIES.items() if kind.kind in ("binary", "regression")])
def test_every_family_is_finite_everywhere_stacks_and_travels(name):
    family = FAMILIES[name]
    theta = [axis.default for axis in family.axes]
    loss = family.of(theta)
    x = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4], requires_grad=True)
    for target in (torch.zeros(5), torch.ones(5)):
        (slope,) = torch.autograd.grad(loss(x, target), x)
        assert bool(slope.isfinite().all())

    def stacked(parameters):
        return torch.func.functional_call(loss, {"theta": parameters}, (x.detach(), torch.ones(5)))

    rows = torch.stack([loss.theta, loss.theta])
    torch.testing.assert_close(torch.func.vmap(stacked)(rows), loss(x, torch.ones(5)).detach().expand(2))
    fresh = family.of([axis.decode(axis.encode(axis.default) + 0.5) for axis in family.axes])
    fresh.load_state_dict(loss.state_dict())
    assert fresh.theta.tolist() == theta
    assert kind_of(loss) == family.kind
    assert loss.formula
    assert loss(x.half(), torch.ones(5)).dtype == torch.float32


@pytest.mark.parametrize("name", [name for name, kind in FAMILIES.items() if kind.kind in ("binary", "regression")])
def test_each_family_has_a_config_with_its_defaults(name):
    family = FAMILIES[name]
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "loss" / f"{name}.yaml")
    assert config == {
        "_target_": f"tglo_lightning.losses.{family.__name__}",
        **{axis.name: axis.default for axis in family.axes},
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BinaryTaylorLoss()(Z, Y[:, 0]), r"the target must have the shape of the logits, \(13, 2\)"),
        (lambda: BarronLoss()(Z, None), "`target` must be a tensor"),
        (lambda: BarronLoss(scale=-1.0), "`scale` must be"),
        (lambda: HuberLoss(ignore_index=0), "HuberLoss has no option 'ignore_index'"),
        (lambda: loss_like(nn.MSELoss(reduction="batchmean"), "huber", (1.0,)), "in place of MSELoss, with its reduct"),
    ],
)
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
