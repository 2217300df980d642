"""TaylorGLOLoss: the worked cases, theta as a buffer, and its two ways through hard labels."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.losses.functional import num_parameters

CASES = json.loads((Path(__file__).parents[1] / "theory" / "theory_vectors.json").read_text())
# Found and published by the authors of the method for MNIST
MNIST = [-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513]


def data(samples=4, classes=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(classes, (samples,), generator=generator)


def theta(order=3, seed=0, count=None, dtype=torch.float64):
    shape = (num_parameters(order),) if count is None else (count, num_parameters(order))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"n={case['num_classes']}")
def test_worked_cases(case):
    target = torch.tensor(case["target"])
    one_hot = F.one_hot(target, case["num_classes"]).double()
    for labels in (target, one_hot):
        z = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
        value = TaylorGLOLoss(case["theta"])(z, labels)
        value.backward()
        assert value.item() == pytest.approx(case["loss"], rel=1e-11, abs=1e-11)
        assert (-z.grad).tolist() == pytest.approx(case["logit_velocity"], rel=1e-10, abs=1e-10)
        smoothed = TaylorGLOLoss(case["theta"], label_smoothing=case["alpha"])(z, labels)
        reparameterised = TaylorGLOLoss(case["label_smoothed_theta"])(z, labels)
        torch.testing.assert_close(smoothed, reparameterised, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [2, 3, 4, 5, 7])
def test_any_order(order):
    loss = TaylorGLOLoss(theta(order), order=order)
    logits, target = data()
    z = logits.requires_grad_()
    assert loss.order == order
    torch.testing.assert_close(loss(z, target), loss(z, F.one_hot(target, 7).double()))
    assert torch.autograd.gradcheck(lambda z: loss(z, target), z, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, target), z)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_derivatives_in_theta(order):
    logits, target = data()
    loss = TaylorGLOLoss(order=order)

    def value(t, z):
        return functional_call(loss, {"theta": t}, (z, target))

    inputs = (theta(order).requires_grad_(), logits.requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": torch.rand(7).double()}], ids=list)
@pytest.mark.parametrize("soft", [False, True])
def test_a_population_is_one_stacked_buffer(options, soft):
    logits, target = data()
    labels = F.one_hot(target, 7).double() if soft else target
    loss, thetas = TaylorGLOLoss(**options), theta(count=3)
    buffers = {name: buffer for name, buffer in loss.named_buffers() if name != "theta"}

    def value(t, z):
        return functional_call(loss, {"theta": t, **buffers}, (z, labels))

    stacked = vmap(grad(value, argnums=(0, 1)), (0, None))(thetas, logits)
    for i, t in enumerate(thetas):
        alone, z = TaylorGLOLoss(t, **options), logits.clone().requires_grad_()
        alone(z, labels).backward()
        torch.testing.assert_close(stacked[1][i], z.grad)
        torch.testing.assert_close(stacked[0][i], grad(value)(t, logits))


def test_the_quick_way_is_the_plain_way():
    """Numbers read from theta give what tensors give: value and gradient, also at a published theta in float32."""
    loss = TaylorGLOLoss(MNIST)
    for classes in (2, 10, 1000):
        logits, target = data(32, classes, dtype=torch.float32)
        quick, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        exact = logits.double().requires_grad_()
        values = [loss(quick, target), functional_call(loss, {"theta": loss.theta.requires_grad_()}, (plain, target))]
        loss.theta.requires_grad_(False)
        values[0].backward()
        values[1].backward()
        loss(exact, F.one_hot(target, classes).double()).backward()
        torch.testing.assert_close(*values)
        scale = exact.grad.abs().max().item()
        for z in (quick, plain):
            torch.testing.assert_close(z.grad.double(), exact.grad, rtol=0, atol=2e-6 * scale)


def test_theta_too_large_for_float32():
    loss = TaylorGLOLoss([0.0, 0.0, 1.0, 1e39, 0.0, 0.0, 0.0, 0.0])
    logits, target = data()
    assert loss(logits.requires_grad_(), target).isfinite()
    loss(logits.float().requires_grad_(), target).backward()  # infinite there, and no exception


@pytest.mark.parametrize("change", ["copy_", "no_grad", "data", "numpy", "load_state_dict", "assign", "deepcopy", "to"])
def test_a_changed_theta_is_seen(change):
    logits, target = data()
    loss, new = TaylorGLOLoss(theta()), theta(seed=1)
    old = loss(logits, target)
    if change == "copy_":
        loss.theta.copy_(new)
    elif change == "no_grad":
        with torch.no_grad():
            loss.theta += new - loss.theta
    elif change == "data":
        loss.theta.data[:] = new
    elif change == "numpy":
        loss.theta.numpy()[:] = new.numpy()
    elif change == "load_state_dict":
        loss.load_state_dict({"theta": new})
    elif change == "assign":
        loss.theta = new
    elif change == "deepcopy":
        loss = copy.deepcopy(loss)
        loss.theta.copy_(new)
    elif change == "to":
        new = new.float()
        loss = TaylorGLOLoss(new.double()).to(torch.float32)
    torch.testing.assert_close(loss(logits, target), TaylorGLOLoss(new)(logits, target))
    assert not torch.isclose(loss(logits, target), old)


@pytest.mark.parametrize("theta_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_theta_and_logits_of_different_dtypes(theta_dtype, dtype):
    logits, target = data(dtype=dtype)
    t = theta(dtype=theta_dtype)
    loss = TaylorGLOLoss(t)
    assert loss.theta.dtype == theta_dtype
    exact = TaylorGLOLoss(t.double())(logits.double(), target)
    for labels in (target, F.one_hot(target, 7).to(dtype)):
        got = loss(logits, labels)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), exact, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiled_by_inductor():
    torch.compiler.reset()
    loss = TaylorGLOLoss(theta())
    compiled = torch.compile(loss, fullgraph=True)
    for changed in (False, True):
        if changed:
            loss.theta.copy_(theta(seed=1))
        logits, target = data(16, dtype=torch.float32)
        z, z_eager = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        got, expected = compiled(z, target), loss(z_eager, target)
        torch.testing.assert_close(got, expected)
        got.backward()
        expected.backward()
        torch.testing.assert_close(z.grad, z_eager.grad)


def test_traced_by_dynamo():
    torch.compiler.reset()
    loss = TaylorGLOLoss(theta())
    z = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.arange(15).view(5, 3) % 4
    found = []
    for call in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        value = call(z, target)
        found.append([value, *torch.autograd.grad(value, z)])
    torch.testing.assert_close(*found)


def test_theta_travels_with_a_module():
    class Module(nn.Module):
        def __init__(self, order=3):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 3))
            self.criterion = TaylorGLOLoss(theta(order), order=order)

    module, other = Module(), Module()
    other.criterion.theta.zero_()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.criterion.theta, module.criterion.theta)
    assert [name for name, _ in module.named_parameters()] == ["net.0.weight", "net.0.bias"]
    assert module.to(torch.float32).criterion.theta.dtype == torch.float32
    assert module.to("meta").criterion.theta.device.type == "meta"
    with pytest.raises(RuntimeError, match=r"size mismatch for criterion\.theta"):
        Module(order=4).load_state_dict(other.state_dict())


def test_a_given_theta_is_copied():
    given = theta()
    loss = TaylorGLOLoss(given)
    given.zero_()
    assert loss.theta.abs().sum() > 0
    assert not TaylorGLOLoss(theta().requires_grad_()).theta.requires_grad


def test_zero_theta_has_no_gradient():
    loss, (logits, target) = TaylorGLOLoss(), data()
    z = logits.requires_grad_()
    value = loss(z, target)
    value.backward()
    assert value == 0
    assert (z.grad == 0).all()
    assert loss.theta.tolist() == [0.0] * 8


def test_no_gradient_wanted():
    loss, (logits, target) = TaylorGLOLoss(theta()), data()
    expected = loss(logits.clone().requires_grad_(), target)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            got = loss(logits, target)
        assert not got.requires_grad
        torch.testing.assert_close(got, expected.detach())


def test_theta_made_in_inference_mode():
    with torch.inference_mode():
        loss = TaylorGLOLoss(theta().tolist())
    logits, target = data()
    loss(logits.requires_grad_(), target).backward()
    assert logits.grad.isfinite().all()


def test_repr_shows_the_polynomial():
    loss = TaylorGLOLoss([0, 0.5, 1.0, 0, 0, -2.0, 0, 0], weight=torch.ones(2), label_smoothing=0.1)
    assert repr(loss) == (
        "TaylorGLOLoss(order=3, f(y, h) = 1 (h - 0.5) - 2 y (h - 0.5), weight=[1.0, 1.0], label_smoothing=0.1)"
    )


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_theta_stays_exact_in_a_network_of_half_precision(half):
    theta = [0.1, 1000.7, 0.3, -0.2, 0.5, 1.1, -0.7, 0.9]
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), TaylorGLOLoss(theta)).to(half)
    assert network[0].weight.dtype == half
    assert network[1].theta.tolist() == theta
