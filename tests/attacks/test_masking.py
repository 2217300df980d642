"""Networks that hide their gradients are found out; honest ones are left in peace."""

import copy
import warnings

import pytest
import torch
from attacked_networks import EVOLVED, Net, mlp, train
from torch import nn

from tglo_lightning.attacks import FGSM, PGD, GradientMaskingWarning, Square, evaluate_robustness
from tglo_lightning.losses import TaylorGLOLoss

ATTACKS = [FGSM("own"), FGSM(), PGD("own", steps=20), PGD(steps=20), PGD("margin", steps=20)]
EPSILONS = [0.05, 0.1, 0.2]


class Hot(nn.Module):
    """Temperature 1e-3 before the softmax."""

    def forward(self, x):
        return x / 1e-3


class Quantised(nn.Module):
    """Sixteen grey levels."""

    def forward(self, x):
        return (x * 16).round() / 16


class Integers(nn.Module):
    """The same, the graph cut."""

    def forward(self, x):
        return (x * 16).round().int().float() / 16


class Noisy(nn.Module):
    def forward(self, x):
        return x + 0.05 * torch.randn_like(x)


def wrapped(net, *, before=None, after=None):
    layers = [before or nn.Identity(), copy.deepcopy(net.layers), after or nn.Identity()]
    return Net(nn.Sequential(*layers), net.criterion).eval()


def kinds(report):
    return {finding.kind for finding in report.findings}


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientMaskingWarning)
        return evaluate_robustness(*args, **kwargs)


def test_an_honest_network_raises_no_warning(net, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate_robustness(net, data, ATTACKS, EPSILONS)
    assert report.findings == []
    assert report.warnings == []
    assert report.huge_epsilon == {"own": 0.0, "cross_entropy": 0.0, "margin": 0.0}


def test_a_hot_softmax(net, data):
    hot = wrapped(net, after=Hot())
    with pytest.warns(GradientMaskingWarning, match="exactly zero"):
        report = evaluate_robustness(hot, data, ATTACKS, EPSILONS)
    assert kinds(report) >= {"zero_gradients", "huge_epsilon", "own_loss_weaker", "cross_entropy_weaker"}
    assert report["fgsm-own"].zero_gradients > 0.5
    # No softmax saturates the margin
    honest = quiet(net, data, ATTACKS, EPSILONS)
    assert report["pgd-margin"].accuracy == pytest.approx(honest["pgd-margin"].accuracy, abs=0.05)
    assert report["pgd-cross_entropy"].accuracy[1] > honest["pgd-cross_entropy"].accuracy[1] + 0.2


@pytest.mark.parametrize("layer", [Quantised, Integers])
def test_a_quantised_input(net, data, layer):
    pytest.importorskip("pyautoattack")
    report = quiet(wrapped(net, before=layer()), data, [*ATTACKS, Square(queries=100)], EPSILONS)
    assert kinds(report) == {"zero_gradients", "huge_epsilon", "gradient_free_stronger"}
    assert all(attack.zero_gradients == 1 for attack in report.attacks if attack.knowledge == "gradient")
    assert report.huge_epsilon == {"own": 1.0, "cross_entropy": 1.0, "margin": 1.0}
    assert report.worst(0.2) < report["pgd-margin"].accuracy[-1]


def test_a_single_step_is_no_proof_of_masking(net, data):
    pytest.importorskip("pyautoattack")
    report = quiet(wrapped(net, before=Quantised()), data, [FGSM(), Square(queries=100)], 0.2)
    [message] = [f.message for f in report.findings if f.kind == "gradient_free_stronger"]
    assert "run PGD" in message


def test_a_loss_that_hides_its_gradient(data):
    torch.manual_seed(0)
    net = train(Net(mlp(), TaylorGLOLoss(EVOLVED)))
    report = quiet(net, data, ATTACKS, EPSILONS)
    assert "own_loss_weaker" in kinds(report)
    assert report["fgsm-own"].accuracy[-1] > report["fgsm-cross_entropy"].accuracy[-1]


def test_a_random_forward_pass(net, data):
    report = quiet(wrapped(net, before=Noisy()), data, FGSM(), 0.05)
    assert "random_forward" in kinds(report)


def test_training_mode_is_told_and_kept(net, data):
    model = wrapped(net)
    model.train()
    model.layers[1].eval()
    modes = [child.training for child in model.modules()]
    with pytest.warns(GradientMaskingWarning, match="in training mode"):
        report = evaluate_robustness(model, data, FGSM(), 0.05)
    assert [child.training for child in model.modules()] == modes
    assert kinds(report) == {"training_mode"}
    model.eval()
    assert torch.equal(report.clean, quiet(model, data, FGSM(), 0.05).clean)


def test_dropout_that_stays_on(net, data):
    class Stubborn(nn.Dropout):
        def train(self, mode=True):
            return super().train(True)

    report = quiet(wrapped(net, before=Stubborn(0.3)), data, FGSM(), 0.05)
    assert kinds(report) >= {"training_mode", "random_forward"}


def test_accuracy_that_rises_with_epsilon():
    from tglo_lightning.attacks import AttackResult
    from tglo_lightning.attacks.masking import about_attacks

    robust = torch.zeros(3, 50, dtype=torch.bool)
    robust[0, :40], robust[1, :10], robust[2, :20] = True, True, True
    attack = AttackResult("pgd-margin", "gradient", True, {"loss": "margin", "steps": 5}, robust, 0, 0, None, 0.0)
    [finding] = about_attacks([attack], [0.0, 0.1, 0.2])
    assert finding.kind == "rises_with_epsilon"


def test_a_gradient_that_is_not_a_number_moves_nothing(net, data):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    class Layer(nn.Module):
        def forward(self, x):
            return Broken.apply(x)

    report = quiet(wrapped(net, before=Layer()), data, [FGSM(), PGD(steps=3, random_start=False)], 0.2)
    assert report.worst_case == [report.clean_accuracy]
    assert report["fgsm-cross_entropy"].zero_gradients == 1
