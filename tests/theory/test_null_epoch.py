import pytest
import torch
from torch import nn

from tglo_lightning import theory
from tglo_lightning.losses import CrossEntropyLoss, TaylorGLOLoss
from tglo_lightning.losses.functional import num_parameters


@pytest.mark.parametrize("n", [2, 3, 10, 100])
@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        ("cross_entropy", lambda n: (0, n, -n)),
        ("brier", lambda n: (-2 / n, 2, -2)),
        ("baikal", lambda n: (n, n**2, -3 * n**2 + n**2 - n**2)),
        (nn.CrossEntropyLoss(label_smoothing=0.1), lambda n: (0.1, 0.9 * n, -n)),
    ],
    ids=["cross_entropy", "brier", "baikal", "smoothed"],
)
def test_classic_losses_by_hand(loss, by_hand, n):
    told = theory.trainability(loss, n)
    # Baikal: d/dh [1/h + (1/n)/h^2] = -n^2 - 2 n^2
    assert [float(value) for value in told[:3]] == pytest.approx(by_hand(n), abs=1e-9)
    assert told.trainable is True
    assert told.stable is True
    assert told.published is True


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_any_order_from_the_definition(order, alpha):
    generator = torch.Generator().manual_seed(order)
    theta = torch.randn(num_parameters(order), generator=generator, dtype=torch.float64)
    n, h = 5, torch.tensor(0.2, dtype=torch.float64)
    on, off = 1 - alpha + alpha / n, alpha / n
    told = theory.trainability(TaylorGLOLoss(theta, order=order, label_smoothing=alpha), n)
    a = theory.gamma(theta, h, off)
    slope = torch.func.grad(lambda p: (theory.gamma(theta, p, on) + (n - 1) * theory.gamma(theta, p, off)) / n)(h)
    wanted = torch.stack([a, theory.gamma(theta, h, on) - a, slope])
    torch.testing.assert_close(torch.stack(told[:3]), wanted, rtol=1e-9, atol=1e-9)


def test_b_is_the_first_pull_of_an_undecided_network():
    theta = torch.randn(20, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pull = theory.attraction(theta, torch.zeros(20, 6), torch.zeros(20, dtype=torch.long))
    torch.testing.assert_close(theory.trainability(theta, 6).B * 5 / 36, pull)


def test_s_is_the_rate_of_a_drift_that_all_samples_share():
    """Averaged over the labels, the velocity near 1/n is S / n^2 times the drift of the logits."""
    theta, n = torch.randn(8, generator=torch.Generator().manual_seed(3), dtype=torch.float64), 4
    drift = torch.tensor([1.0, -0.5, 0.25, -0.75], dtype=torch.float64)

    def velocity(size):
        return theory.logit_velocity(theta, (size * drift).expand(n, n), torch.arange(n)).mean(0)

    _, slope = torch.func.jvp(velocity, (torch.zeros((), dtype=torch.float64),), (torch.ones((), dtype=torch.float64),))
    torch.testing.assert_close(slope, theory.trainability(theta, n).S / n**2 * drift)


def test_a_flat_loss_is_not_trainable():
    told = theory.trainability([0.0] * 8, 10)
    assert told.trainable is False
    assert told.stable is False
    assert told.published is True


def test_works_in_inference_mode_and_without_gradients():
    with torch.inference_mode():
        assert theory.trainability(CrossEntropyLoss(), 10).stable
        assert theory.trainability("baikal", 10).stable
        assert theory.zero_error("baikal", 10).verdict == "repels"
    with torch.no_grad():
        assert theory.trainability("baikal", 10).stable
