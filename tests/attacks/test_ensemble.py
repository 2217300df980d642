"""Square, AutoAttack and HopSkipJump."""

import logging
import sys

import pytest
import torch
from attacked_networks import Net, images
from torch import nn

from tglo_lightning.attacks import FGSM, PGD, AutoAttack, HopSkipJump, Square, evaluate_robustness
from tglo_lightning.attacks.ensemble import parts

EPSILONS = [0.0, 0.05]


@pytest.fixture
def _pyautoattack():
    pytest.importorskip("pyautoattack")


@pytest.mark.usefixtures("_pyautoattack")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_autoattack_is_never_above_pgd(networks, data, norm):
    epsilons = EPSILONS if norm == "linf" else [0.3]
    for net in networks.values():
        attacks = [FGSM(), PGD(steps=20), PGD("margin", steps=20), PGD("own", steps=20), AutoAttack(20, 60)]
        report = evaluate_robustness(net, data, attacks, epsilons, norm=norm, samples=24, checks=False)
        others = [attack for attack in report.attacks if attack.name != "autoattack"]
        for row in range(len(epsilons)):
            assert report["autoattack"].accuracy[row] <= min(attack.accuracy[row] for attack in others)
        assert report["autoattack"].backward > 0
        assert report["autoattack"].zero_gradients is not None


@pytest.mark.slow
@pytest.mark.usefixtures("_pyautoattack")
def test_the_standard_autoattack_is_never_above_pgd(networks, data):
    for net in networks.values():
        attacks = [PGD(steps=100, restarts=3), PGD("margin", steps=100, restarts=3), AutoAttack()]
        report = evaluate_robustness(net, data, attacks, [0.02, 0.05, 0.1, 0.2], checks=False)
        for weak in report.attacks[:2]:
            assert all(a <= b for a, b in zip(report["autoattack"].accuracy, weak.accuracy, strict=True))


@pytest.mark.usefixtures("_pyautoattack")
def test_autoattack_leaves_logger_and_tracing_alone(net, data):
    level = logging.getLogger("auto-attack").level
    before = sys.gettrace()
    try:
        sys.settrace(None)
        evaluate_robustness(net, data, AutoAttack(2, 5), 0.05, samples=8, checks=False)
        assert logging.getLogger("auto-attack").level == level
        assert sys.gettrace() is None
    finally:
        sys.settrace(before)


@pytest.mark.usefixtures("_pyautoattack")
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_autoattack_with_other_numbers_of_classes(classes):
    x, y = images(40)
    y = y % classes
    torch.manual_seed(0)
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(36, classes)), nn.CrossEntropyLoss())
    train_x, train_y = images(200, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        net.criterion(net(train_x), train_y % classes).backward()
        optimizer.step()
    attacks = [PGD(steps=10), AutoAttack(10, 30)]
    report = evaluate_robustness(net.eval(), (x, y), attacks, 0.05, checks=False)
    assert report.num_classes == classes
    assert report["autoattack"].accuracy[0] <= report["pgd-cross_entropy"].accuracy[0] < report.clean_accuracy
    assert ("apgd-t" in parts(classes)) == (classes > 3)


@pytest.mark.usefixtures("_pyautoattack")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_gradient_free_attacks_break_in_the_ball(net, data, norm, bounds):
    low, high = bounds
    width = high - low

    class Rescaled(nn.Module):
        def forward(self, x):
            return net((x - low) / width)

    x, y = data[0][:16] * width + low, data[1][:16]
    epsilon = (0.2 if norm == "linf" else 1.2) * width
    attacks = [Square(queries=150, restarts=2), HopSkipJump(steps=3)]
    report = evaluate_robustness(Rescaled().eval(), (x, y), attacks, epsilon, norm=norm, bounds=bounds, checks=False)
    for attack in report.attacks:
        assert attack.accuracy[0] < report.clean_accuracy
        assert (attack.backward, attack.zero_gradients) == (0, None)
        assert attack.forward > 16


def test_hopskipjump_with_one_class_has_nowhere_to_start(net, data):
    x, y = (part[data[1] == 0][:3] for part in data)
    report = evaluate_robustness(net, (x, y), HopSkipJump(steps=1), 0.3, checks=False)
    assert report.worst_case == [report.clean_accuracy]


@pytest.mark.usefixtures("_pyautoattack")
@pytest.mark.parametrize("attack", [PGD(steps=3), Square(queries=20), AutoAttack(2, 5), HopSkipJump(steps=1)])
def test_a_seed_repeats_and_neighbours_make_no_difference(net, data, attack):
    def robust(attacks, seed):
        report = evaluate_robustness(net, data, attacks, [0.03, 0.06], samples=24, seed=seed, checks=False)
        return report[attack.name].robust

    torch.manual_seed(5)
    once = robust([attack], 1)
    torch.manual_seed(6)
    assert torch.equal(once, robust([FGSM(), attack], 1))
    assert net.training is False
