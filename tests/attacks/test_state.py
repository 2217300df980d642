"""What is attacked is afterwards as it was; what cannot be attacked is refused."""

import copy
import random

import numpy as np
import pytest
import torch
from attacked_networks import Net, cnn
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from tglo_lightning.attacks import FGSM, PGD, AttackedModel, AutoAttack, Square, evaluate_robustness

X, Y = torch.rand(8, 1, 6, 6), torch.arange(8) % 4


def states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def same(a, b):
    return (
        a[0] == b[0] and all(np.array_equal(x, y) for x, y in zip(a[1], b[1], strict=True)) and torch.equal(a[2], b[2])
    )


@pytest.mark.parametrize("training", [True, False])
def test_everything_is_as_before(networks, data, training):
    pytest.importorskip("pyautoattack")
    net = copy.deepcopy(networks["cnn with BatchNorm, squared error"]).train(training)
    frozen = net.layers[0].weight.requires_grad_(False)
    net.layers[1].weight.grad = torch.ones(6)
    weights = copy.deepcopy(net.state_dict())
    before = states()
    attacks = [FGSM("own"), PGD(steps=2), Square(queries=5), AutoAttack(2, 5)]
    evaluate_robustness(net, data, attacks, 0.05, samples=8, checks=not training)
    assert same(before, states())
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert [child.training for child in net.modules()] == [training] * len(list(net.modules()))
    assert torch.equal(net.layers[1].weight.grad, torch.ones(6))
    assert all(p.grad is None for p in net.parameters() if p is not net.layers[1].weight)
    assert [p.requires_grad for p in net.parameters()] == [p is not frozen for p in net.parameters()]


def test_parameters_that_nobody_knows_of_get_no_gradient(networks, data):
    net = networks["mlp, cross-entropy"]

    class Closure(nn.Module):
        def forward(self, x):
            return net(x)

    evaluate_robustness(Closure(), data, [FGSM(), PGD(steps=2)], 0.1, checks=False)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_also_after_an_error(networks):
    net = networks["mlp, cross-entropy"]
    net.zero_grad()
    before = states()
    with pytest.raises(ValueError, match="bounds"):
        evaluate_robustness(net.train(), (X + 1, Y), FGSM(), 0.1)
    assert net.training
    net.eval()
    assert same(before, states())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_a_loaders_generator_is_as_before(net, data):
    generator = torch.Generator().manual_seed(0)
    dataset = TensorDataset(*data)
    loader = DataLoader(dataset, batch_size=16, sampler=RandomSampler(dataset, generator=generator))
    before = generator.get_state()
    evaluate_robustness(net, loader, FGSM(), 0.1, checks=False)
    assert torch.equal(before, generator.get_state())


def test_works_within_inference_mode_and_without_gradients(net, data):
    plain = evaluate_robustness(net, data, PGD(steps=3), 0.05, checks=False)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            inside = evaluate_robustness(net, (data[0] * 1, data[1] + 0), PGD(steps=3), 0.05, checks=False)
            assert not torch.is_grad_enabled()
        assert torch.equal(plain.attacks[0].robust, inside.attacks[0].robust)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ((X.flatten(1), Y), {}, ValueError, r"images of shape \(N, C, H, W\)"),
        (((X * 255).byte(), Y), {}, ValueError, "floating images"),
        ((X * 2, Y), {}, ValueError, "Pixels must lie in bounds"),
        ((X - 0.5, Y), {"bounds": (-0.4, 1)}, ValueError, "normalize"),
        ((X * float("nan"), Y), {}, ValueError, "Pixels must lie in bounds"),
        ((X, Y + 1), {}, ValueError, "from 0 to 3"),
        ((X, Y - 1), {}, ValueError, "Labels must be class indices"),
        ((X, Y.float()), {}, ValueError, "class indices of shape"),
        ((X, Y[:4]), {}, ValueError, "class indices of shape"),
        ([X], {}, ValueError, "Attacks need floating images|must be tensors"),
        ([], {}, ValueError, "no images"),
        ((X[:0], Y[:0]), {}, ValueError, "no images"),
        ([3], {}, TypeError, "must be"),
        ((X, Y), {"epsilons": -0.1}, ValueError, "at least 0"),
        ((X, Y), {"epsilons": [0.1, float("nan")]}, ValueError, "finite"),
        ((X, Y), {"epsilons": []}, ValueError, "at least one"),
        ((X, Y), {"epsilons": ["0.1"]}, TypeError, r"`epsilons\[0\]` must be a number"),
        ((X, Y), {"norm": "l1"}, ValueError, "`norm`"),
        ((X, Y), {"bounds": (1, 0)}, ValueError, "`bounds`"),
        ((X, Y), {"bounds": 1}, ValueError, "`bounds`"),
        ((X, Y), {"normalize": 1}, ValueError, "`normalize`"),
        ((X, Y), {"normalize": (0, 0)}, ValueError, "`normalize`"),
        ((X, Y), {"normalized_data": True}, ValueError, "needs `normalize"),
        ((X, Y), {"samples": 0}, ValueError, "`samples`"),
        ((X, Y), {"batch_size": 1.5}, TypeError, "`batch_size`"),
        ((X, Y), {"seed": -1}, ValueError, "`seed`"),
        ((X, Y), {"attacks": []}, TypeError, "`attacks`"),
        ((X, Y), {"attacks": "fgsm"}, TypeError, "`attacks`"),
        ((X, Y), {"attacks": [PGD(), PGD(steps=3)]}, ValueError, "differ"),
        ((X, Y), {"attacks": FGSM("own"), "loss": "loss_fn"}, ValueError, "no attribute 'loss_fn'"),
    ],
)
def test_what_cannot_be_attacked_is_refused(net, data, options, error, message):
    arguments = {"attacks": FGSM(), "epsilons": 0.1} | options
    with pytest.raises(error, match=message):
        evaluate_robustness(net, data, **arguments)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: FGSM("hinge"), ValueError),
        (lambda: PGD(steps=0), ValueError),
        (lambda: PGD(steps=1.5), TypeError),
        (lambda: PGD(step_size=0), ValueError),
        (lambda: PGD(restarts=2, random_start=False), ValueError),
        (lambda: Square(queries=0), ValueError),
        (lambda: AutoAttack(steps=True), TypeError),
    ],
)
def test_settings_out_of_range(build, error):
    with pytest.raises(error):
        build()


@pytest.mark.parametrize("output", [lambda x: x, lambda x: (x.flatten(1),), lambda x: x.flatten(1)[:, :1]])
def test_a_forward_without_logits_is_refused(output):
    class Other(nn.Module):
        def forward(self, x):
            return output(x)

    with pytest.raises(ValueError, match=r"logits of shape \(N, n\)"):
        evaluate_robustness(Other().eval(), (X, Y), FGSM(), 0.1)


def test_a_module_is_needed():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        evaluate_robustness(lambda x: x, (X, Y), FGSM(), 0.1)


def test_the_wrapper_warns_in_training_mode():
    net = Net(cnn(), nn.CrossEntropyLoss())
    with pytest.warns(UserWarning, match="training mode"):
        AttackedModel(net)


def test_a_network_without_parameters(data):
    class Mean(nn.Module):
        def forward(self, x):
            return x.unfold(2, 3, 3).unfold(3, 3, 3).mean((-1, -2)).flatten(1)

    report = evaluate_robustness(Mean(), data, FGSM(), [0, 0.1, 0.3], checks=False)
    assert report.accuracy("fgsm-cross_entropy", 0.3) < report.clean_accuracy
