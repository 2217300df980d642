"""FGSM and PGD against a direct computation, image by image."""

import pytest
import torch
import torch.nn.functional as F
from attacked_networks import NETWORKS

from tglo_lightning.attacks import FGSM, PGD, evaluate_robustness

EPSILONS = [0.0, 0.02, 0.05, 0.1, 0.3]


def cross_entropy(net, logits, y):
    return F.cross_entropy(logits, y, reduction="sum")


def own(net, logits, y):
    return len(y) * net.criterion(logits, y)


def margin(net, logits, y):
    hit = F.one_hot(y, logits.shape[1]).bool()
    return (logits.masked_fill(hit, -torch.inf).amax(1) - logits[hit]).sum()


LOSSES = {"cross_entropy": cross_entropy, "own": own, "margin": margin}


def direct(net, x, y, loss, epsilon, *, norm="linf", steps=1, share=1.0):
    """Which images are right before and after `steps` projected steps of `share * epsilon`, by textbook formulas."""
    right = net(x).argmax(1) == y
    attacked = x.clone()
    for _ in range(steps):
        attacked.requires_grad_()
        [gradient] = torch.autograd.grad(LOSSES[loss](net, net(attacked), y), attacked)
        attacked = attacked.detach()
        if norm == "linf":
            attacked = attacked + share * epsilon * gradient.sign()
            attacked = x + (attacked - x).clamp(-epsilon, epsilon)
        else:
            length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
            attacked = attacked + share * epsilon * gradient / length
            offset = attacked - x
            length = offset.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
            attacked = x + offset * (epsilon / length).clamp(max=1)
        attacked = attacked.clamp(0, 1)
    return right & (net(attacked).argmax(1) == y)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", NETWORKS)
def test_fgsm_and_pgd_are_what_the_formulas_say(networks, data, name, loss, norm):
    net, (x, y) = networks[name], data
    epsilons = EPSILONS if norm == "linf" else [5 * epsilon for epsilon in EPSILONS]
    attacks = [FGSM(loss), PGD(loss, steps=7, step_size=0.25, random_start=False)]
    report = evaluate_robustness(net, data, attacks, epsilons, norm=norm, checks=False)
    for row, epsilon in enumerate(epsilons):
        fgsm = direct(net, x, y, loss, epsilon, norm=norm)
        pgd = direct(net, x, y, loss, epsilon, norm=norm, steps=7, share=0.25)
        assert torch.equal(report.attacks[0].robust[row], fgsm)
        assert torch.equal(report.attacks[1].robust[row], pgd)
        assert report.attacks[0].accuracy[row] == fgsm.double().mean()
    assert report.attacks[1].accuracy[-1] < report.clean_accuracy


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_normalisation_happens_behind_the_attack(networks, data, norm):
    """The same network, its normalisation once inside and once in the wrapper; and the data normalised beforehand."""
    net, (x, y) = networks["mlp, cross-entropy"], data
    mean, std = [0.4], [0.25]

    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x * std[0] + mean[0])

    attacks = [FGSM(), PGD(steps=5, random_start=False)]
    plain = evaluate_robustness(net, data, attacks, [0.05, 0.1], norm=norm, checks=False)
    options = {"norm": norm, "normalize": (mean, std), "checks": False}
    shifted = evaluate_robustness(Shifted().eval(), data, attacks, [0.05, 0.1], **options)
    undone = ((x - mean[0]) / std[0], y)
    third = evaluate_robustness(Shifted().eval(), undone, attacks, [0.05, 0.1], normalized_data=True, **options)
    for one, two, three in zip(plain.attacks, shifted.attacks, third.attacks, strict=True):
        assert torch.equal(one.robust, two.robust)
        assert torch.equal(one.robust, three.robust)


def test_other_bounds_are_other_units(networks, data):
    net, (x, y) = networks["mlp, cross-entropy"], data

    class Bytes(torch.nn.Module):
        def forward(self, x):
            return net(x / 255)

    attacks = [FGSM(), PGD(steps=5, random_start=False)]
    plain = evaluate_robustness(net, data, attacks, 0.1, checks=False)
    scaled = evaluate_robustness(Bytes().eval(), (x * 255, y), attacks, 25.5, bounds=(0, 255), checks=False)
    assert [a.accuracy for a in plain.attacks] == [a.accuracy for a in scaled.attacks]


def test_epsilon_0_is_the_clean_accuracy(networks, data):
    from tglo_lightning.attacks import HopSkipJump

    x, y = data
    for net in networks.values():
        report = evaluate_robustness(net, data, [FGSM("own"), PGD("margin"), HopSkipJump()], 0, checks=False)
        clean = net(x).argmax(1) == y
        assert torch.equal(report.clean, clean)
        assert report.worst_case == [clean.double().mean()] == [report.clean_accuracy]
        assert all(torch.equal(attack.robust[0], clean) for attack in report.attacks)
        assert report.backward == 0


def test_restarts_break_more_and_nothing_unbroken_is_attacked_again(net, data):
    one = evaluate_robustness(net, data, PGD(steps=3), 0.05, checks=False)
    many = evaluate_robustness(net, data, PGD(steps=3, restarts=5), 0.05, checks=False)
    assert not (many.attacks[0].robust & ~one.attacks[0].robust).any()
    broken = int(one.clean.sum() - one.attacks[0].robust.sum())
    assert broken > 0
    assert many.backward <= 5 * one.backward - 4 * 3 * broken


def test_passes_are_counted(net, data):
    report = evaluate_robustness(net, data, [FGSM(), PGD(steps=4)], [0.05, 0.1], checks=False)
    right = int(report.clean.sum())
    assert (report["fgsm-cross_entropy"].forward, report["fgsm-cross_entropy"].backward) == (4 * right, 2 * right)
    assert (report["pgd-cross_entropy"].forward, report["pgd-cross_entropy"].backward) == (10 * right, 8 * right)
    # one image to learn the number of classes, and one pass for the clean accuracy
    assert report.forward == 14 * right + len(data[0]) + 1
    assert report.backward == 10 * right


def test_batches_and_loaders_make_no_difference(net, data):
    x, y = data
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=10)
    attacks = [FGSM(), PGD(steps=3, random_start=False)]
    whole = evaluate_robustness(net, data, attacks, 0.05, checks=False)
    parts = evaluate_robustness(net, loader, attacks, 0.05, checks=False, batch_size=7)
    fewer = evaluate_robustness(net, loader, attacks, 0.05, checks=False, samples=25)
    for a, b, c in zip(whole.attacks, parts.attacks, fewer.attacks, strict=True):
        assert torch.equal(a.robust, b.robust)
        assert torch.equal(a.robust[:, :25], c.robust)
