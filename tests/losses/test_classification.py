"""Every loss against its definition, in every shape, type and transform, and cross-entropy against torch's."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tglo_lightning.losses import CrossEntropyLoss, LinearLoss, SeparableLoss

PRIORS = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
N_CLASSES = 5
WEIGHT = torch.tensor([0.2, 1.5, 0.7, 1.0, 2.5])
SHAPES = [(N_CLASSES,), (6, N_CLASSES), (4, N_CLASSES, 3), (2, N_CLASSES, 3, 2)]
REDUCTIONS = ["mean", "sum", "none"]
OPTIONS = [
    {},
    {"weight": WEIGHT},
    {"label_smoothing": 0.2},
    {"label_smoothing": 1.0},
    {"weight": WEIGHT, "label_smoothing": 0.2},
    {"ignore_index": 2},
    {"weight": WEIGHT, "ignore_index": 2, "label_smoothing": 0.1},
]


def taken(tester, options):
    """The options without label smoothing for the family that smooths by a parameter."""
    return options if tester.takes_smoothing else {k: v for k, v in options.items() if k != "label_smoothing"}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_value_and_gradient(tester, options):
    options = taken(tester, options)
    for shape in SHAPES:
        logits, target, probabilities = tester.data(shape)
        for reduction in REDUCTIONS:
            loss = tester.build(reduction=reduction, **options)
            for labels in (target, probabilities):
                z, z_expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
                got, expected = loss(z, labels), tester.expected(z_expected, labels, reduction, **options)
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
                upstream = torch.rand_like(got)
                got.backward(upstream)
                expected.backward(upstream)
                torch.testing.assert_close(z.grad, z_expected.grad, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-4), (torch.float64, 1e-10), (torch.float16, 1e-4), (torch.bfloat16, 1e-4)],
)
def test_dtypes(tester, dtype, tolerance):
    logits, target, _ = tester.data((6, N_CLASSES), dtype)
    expected = tester.expected(logits, target, "mean")
    for index_dtype in (torch.int64, torch.int32, torch.uint8, torch.int8):
        got = tester.build()(logits, target.to(index_dtype))
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


def test_probabilities_of_another_dtype(tester):
    logits, _, probabilities = tester.data((6, N_CLASSES))
    expected = tester.build()(logits.float(), probabilities.float())
    torch.testing.assert_close(tester.build()(logits.float(), probabilities), expected)


@pytest.mark.parametrize("soft", [False, True])
def test_autocast_stays_in_float32(tester, soft):
    logits, target, probabilities = tester.data((6, N_CLASSES), torch.float32)
    labels = probabilities if soft else target
    loss, features, matrix = tester.build(), logits.requires_grad_(), torch.eye(N_CLASSES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = features @ matrix
        assert z.dtype == torch.bfloat16
        got = loss(z, labels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, loss(z.float(), labels), rtol=1e-6, atol=1e-6)
    got.backward()
    assert features.grad.dtype == torch.float32
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.1}], ids=list)
def test_first_and_second_derivatives(tester, options):
    options = {k: v.double() if k == "weight" else v for k, v in taken(tester, options).items()}
    loss = tester.build(**options)
    logits, target, probabilities = tester.data((2, N_CLASSES))
    z = logits.div(3).requires_grad_()
    for labels in (target, probabilities):
        assert torch.autograd.gradcheck(lambda z, y=labels: loss(z, y), z, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lambda z, y=labels: loss(z, y), z)


def test_gamma_is_the_derivative_of_f(tester):
    if not issubclass(tester.family, SeparableLoss):
        pytest.skip("not separable")
    loss = tester.build().for_classes(7)
    h = torch.linspace(0.05, 0.95, 7, dtype=torch.float64).requires_grad_()
    for y in (0.0, 1.0, 0.3, torch.linspace(0, 1, 7).double()):
        (expected,) = torch.autograd.grad(loss.f(y, h).sum(), h)
        torch.testing.assert_close(loss.gamma(y, h), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(loss.f(y, h), tester.f(y, h), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(SeparableLoss.gamma(loss, y, h), expected, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(lambda h: loss.gamma(0.7, h), h)
    assert loss.gamma(torch.tensor([[0.0], [1.0]]).double(), h).shape == (2, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [200.0, 1e4])
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_logits(tester, dtype, size, sign):
    target = torch.arange(N_CLASSES)
    for winner in range(3):
        for labels in (target, F.one_hot(target, N_CLASSES).to(dtype), torch.full((N_CLASSES, N_CLASSES), 0.2)):
            z = torch.zeros(N_CLASSES, N_CLASSES, dtype=dtype)
            z[:, winner] = sign * size
            z.requires_grad_()
            value = tester.build()(z, labels)
            value.backward()
            assert value.isfinite()
            assert z.grad.isfinite().all()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_masked_class_drops_out(tester, label_smoothing):
    """A class with a logit of minus infinity, as attention and action masks make them."""
    options = taken(tester, {"label_smoothing": label_smoothing, "reduction": "sum"})
    loss = tester.build(**options)
    logits, target, _ = tester.data((6, N_CLASSES))
    target = target.clamp(max=3)
    values, gradients = [], []
    for labels in (target, F.one_hot(target, N_CLASSES).double()):
        masked = torch.cat([logits[:, :4], torch.full((6, 1), -torch.inf)], dim=1).requires_grad_()
        values.append(loss(masked, labels))
        gradients.append(torch.autograd.grad(values[-1], masked)[0])
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    assert (gradients[0][:, 4] == 0).all()
    # What the others get: the loss without the class, or where it counts the classes, that of a class without hope
    z = logits.clone().requires_grad_()
    alone = z[:, :4]
    if tester.name in ("taylorglo", "brier", "forward", "gce", "mae", "taylor_ce"):
        expected = loss(torch.cat([alone, torch.full((6, 1), -700.0)], dim=1), target)
    else:
        alpha = label_smoothing if tester.takes_smoothing else 0.1
        y = F.one_hot(target, 4) * (1 - alpha) + alpha / N_CLASSES
        if tester.name == "logit_adjustment":
            expected = tester.build(priors=PRIORS[:4], reduction="sum")(alone, y)
        elif tester.name == "class_weights":
            expected = tester.rows(alone, y, 1 / PRIORS[:4] / N_CLASSES).sum()
        else:
            constant = alpha / N_CLASSES * 5 if tester.name == "nce_rce" else 0
            expected = (tester.rows(alone, y, None) + constant).sum()
    torch.testing.assert_close(values[0], expected)
    torch.testing.assert_close(gradients[0], torch.autograd.grad(expected, z)[0])


def test_layouts(tester):
    """Transposed, strided and expanded logits."""
    logits, target, _ = tester.data((6, N_CLASSES))
    loss = tester.build()
    transposed = logits.t().contiguous().t()
    strided = torch.stack([logits, logits], dim=-1)[..., 0]
    for z in (transposed, strided):
        torch.testing.assert_close(loss(z.requires_grad_(), target), loss(logits, target))
    row = logits[:1].clone().requires_grad_()
    loss(row.expand(6, -1), target).backward()
    expected = logits[:1].repeat(6, 1).requires_grad_()
    loss(expected, target).backward()
    torch.testing.assert_close(row.grad, expected.grad.sum(0, keepdim=True))
    channels_last = tester.data((2, N_CLASSES, 3, 4))[0].contiguous(memory_format=torch.channels_last)
    places = tester.data((2, N_CLASSES, 3, 4))[1]
    torch.testing.assert_close(loss(channels_last, places), loss(channels_last.contiguous(), places))


def test_all_ignored_and_empty_are_as_in_torch(tester):
    ignored = torch.full((3,), -100)
    for reduction in REDUCTIONS:
        ours, torchs = tester.build(reduction=reduction), nn.CrossEntropyLoss(reduction=reduction)
        z = torch.randn(3, N_CLASSES, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours(z, ignored), torchs(z, ignored), equal_nan=True)
        empty, none = torch.zeros(0, N_CLASSES), torch.zeros(0, dtype=torch.long)
        torch.testing.assert_close(ours(empty, none), torchs(empty, none), equal_nan=True)


def test_ignored_samples_get_no_gradient(tester):
    logits, target, _ = tester.data((6, N_CLASSES))
    target[::2] = -100
    z = logits.clone().requires_grad_()
    tester.build()(z, target).backward()
    assert (z.grad[::2] == 0).all()
    kept = logits[1::2].clone().requires_grad_()
    tester.build()(kept, target[1::2]).backward()
    torch.testing.assert_close(z.grad[1::2], kept.grad)


def test_inputs_stay_as_they_are(tester):
    logits, target, probabilities = tester.data((6, N_CLASSES))
    before = [tensor.clone() for tensor in (logits, target, probabilities)]
    z = logits.requires_grad_()
    generator_state = torch.get_rng_state()
    (tester.build()(z, target) + tester.build()(z, probabilities)).backward()
    assert torch.equal(torch.get_rng_state(), generator_state)
    for now, then in zip((logits, target, probabilities), before, strict=True):
        assert torch.equal(now, then)


def test_backward_twice(tester):
    logits, target, _ = tester.data((6, N_CLASSES))
    z = logits.requires_grad_()
    value = tester.build()(z, target)
    value.backward(retain_graph=True)
    once = z.grad.clone()
    value.backward()
    torch.testing.assert_close(z.grad, 2 * once)


def test_copies(tester):
    logits, target, _ = tester.data((6, N_CLASSES))
    options = taken(tester, {"ignore_index": 3, "label_smoothing": 0.1, "reduction": "sum"})
    loss = tester.build(weight=WEIGHT.double(), **options)
    other = tester.build(weight=torch.ones(N_CLASSES).double(), **options)
    other.load_state_dict(loss.state_dict())
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), other):
        assert torch.equal(twin(logits, target), loss(logits, target))
        assert repr(twin) == repr(loss)


def test_weights_saved_with_another_loss_load_strictly(tester):
    module = nn.ModuleDict({"net": nn.Linear(2, N_CLASSES), "criterion": tester.build()})
    before = tester.build().state_dict()
    module.load_state_dict({"net.weight": torch.ones(N_CLASSES, 2), "net.bias": torch.zeros(N_CLASSES)})
    assert all(torch.equal(value, before[name]) for name, value in module["criterion"].state_dict().items())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_parameters_stay_exact_in_a_network_of_half_precision(tester, half):
    network = nn.Sequential(nn.Linear(2, 2), tester.build()).to(half)
    assert network[0].weight.dtype == half
    for name, buffer in tester.build().named_buffers():
        assert torch.equal(getattr(network[1], name), buffer)


@pytest.mark.parametrize("soft", [False, True])
def test_torch_func(tester, soft):
    logits, target, probabilities = tester.data((3, 4, N_CLASSES))
    target = tester.data((3, N_CLASSES, 4))[1] if not soft else probabilities.softmax(-1)
    loss = tester.build()
    gradients = torch.func.vmap(torch.func.grad(loss))(logits, target)
    for z, y, gradient in zip(logits, target, gradients, strict=True):
        z = z.clone().requires_grad_()
        loss(z, y).backward()
        torch.testing.assert_close(gradient, z.grad)
        torch.testing.assert_close(torch.func.jacrev(lambda z, y=y: loss(z, y))(z.detach()), z.grad)
        torch.testing.assert_close(torch.func.jacfwd(lambda z, y=y: loss(z, y))(z.detach()), z.grad)
    hessian = torch.func.hessian(lambda z: loss(z, target[0]))(logits[0])
    expected = torch.autograd.functional.hessian(lambda z: loss(z, target[0]), logits[0])
    torch.testing.assert_close(hessian, expected)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("targets", ["shared", "stacked"])
def test_a_population_is_one_stacked_buffer(tester, soft, targets):
    loss = tester.build()
    middle = loss.theta if tester.name == "taylorglo" else torch.tensor([axis.default for axis in loss.axes])
    thetas = torch.stack([middle.double() * factor for factor in (0.5, 0.8, 1.0)])
    if tester.name == "taylor_ce":
        thetas = thetas + 1
    priors = loss.theta[thetas.shape[1] :]  # none but for losses that know how frequent a class is
    thetas = torch.cat([thetas, priors.expand(3, -1)], dim=1)
    logits, _, probabilities = tester.data((3, 6, N_CLASSES), torch.float32)
    labels = probabilities.softmax(-1) if soft else tester.data((3, N_CLASSES, 6))[1]
    labels = labels if targets == "stacked" else labels[0]

    def value(theta, z, y):
        return torch.func.functional_call(loss, {"theta": theta}, (z, y))

    in_dims = (0, 0, 0 if targets == "stacked" else None)
    together = torch.func.vmap(torch.func.grad_and_value(value, argnums=1), in_dims)(thetas, logits, labels)
    for i, theta in enumerate(thetas):
        z = logits[i].clone().requires_grad_()
        alone = tester.build(theta.tolist())(z, labels[i] if targets == "stacked" else labels)
        torch.testing.assert_close(together[1][i], alone)
        torch.testing.assert_close(together[0][i], torch.autograd.grad(alone, z)[0])


def test_compile(tester):
    torch.compiler.reset()
    logits, target, probabilities = tester.data((6, N_CLASSES), torch.float32)
    full = {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.1}
    for labels, options in ((target, {}), (probabilities, full)):
        loss = tester.build(**taken(tester, options))
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        z, z_expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        got, expected = compiled(z, labels), loss(z_expected, labels)
        torch.testing.assert_close(got, expected)
        got.backward()
        expected.backward()
        torch.testing.assert_close(z.grad, z_expected.grad)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy_is_torchs(options, reduction, shape):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(shape, generator=generator)
    target = torch.randint(N_CLASSES, shape[:1] * (len(shape) > 1) + shape[2:], generator=generator)
    ours, torchs = CrossEntropyLoss(reduction=reduction, **options), nn.CrossEntropyLoss(reduction=reduction, **options)
    torch.testing.assert_close(ours(logits, target), torchs(logits, target), equal_nan=True)
    if "ignore_index" not in options:  # torch refuses it beside probabilities
        probabilities = logits.softmax(min(len(shape) - 1, 1))
        torch.testing.assert_close(ours(logits, probabilities), torchs(logits, probabilities))


def test_cross_entropy_is_torchs_at_minus_infinity():
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [2.0, 0.5, -torch.inf]])
    for target in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        torch.testing.assert_close(CrossEntropyLoss()(logits, target), F.cross_entropy(logits, target))
        z, z_torch = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        CrossEntropyLoss()(z, target).backward()
        F.cross_entropy(z_torch, target).backward()
        torch.testing.assert_close(z.grad, z_torch.grad, equal_nan=True)


def test_a_masked_true_class_is_impossible():
    logits, target = torch.tensor([[-torch.inf, 0.0, 1.0]]), torch.tensor([0])
    for labels in (target, F.one_hot(target, 3).float()):
        assert CrossEntropyLoss(label_smoothing=0.1)(logits, labels) == torch.inf


def test_a_linear_loss_looks_at_the_true_class_alone():
    class Doubled(LinearLoss, abstract=True):
        def g(self, h, log_h):
            assert h.shape == (3,)
            return 2 * log_h

    logits, target = torch.randn(3, 4), torch.tensor([0, 3, 1])
    torch.testing.assert_close(Doubled()(logits, target), 2 * F.cross_entropy(logits, target))
