"""Every loss of the family against its definition, and cross-entropy against torch's."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tglo_lightning.losses import BaikalLoss, BrierLoss, CrossEntropyLoss, TaylorGLOLoss

THETA = [0.3, 0.6, -1.2, 0.8, 0.5, 1.7, -0.4, 0.9]
N_CLASSES = 5
WEIGHT = torch.tensor([0.2, 1.5, 0.7, 1.0, 2.5])
SHAPES = [(N_CLASSES,), (6, N_CLASSES), (4, N_CLASSES, 3), (2, N_CLASSES, 3, 2)]
OPTIONS = [
    {},
    {"weight": WEIGHT},
    {"label_smoothing": 0.2},
    {"label_smoothing": 1.0},
    {"weight": WEIGHT, "label_smoothing": 0.2},
    {"ignore_index": 2},
    {"weight": WEIGHT, "ignore_index": 2, "label_smoothing": 0.1},
]


def taylor(y, h):
    t0, t1, t2, t3, t4, t5, t6, t7 = THETA
    y, h = y - t0, h - t1
    return t2 * h + t3 * h**2 + t4 * h**3 + t5 * y * h + t6 * y * h**2 + t7 * y**2 * h


# f(y, h) written down a second time
DEFINITIONS = {
    "taylorglo": (lambda **k: TaylorGLOLoss(THETA, **k), taylor),
    "baikal": (BaikalLoss, lambda y, h: h.log() - y / h),
    "brier": (BrierLoss, lambda y, h: -(y - h).square()),
    "cross_entropy": (CrossEntropyLoss, lambda y, h: y * h.log()),
}


class LossTester:
    """Compares module, ``f`` and ``gamma`` of one loss with the definition, in float64 and with one-hot labels."""

    def __init__(self, name):
        self.build, self.f = DEFINITIONS[name]

    @staticmethod
    def data(shape, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        axis = min(len(shape) - 1, 1)
        target = torch.randint(N_CLASSES, shape[:axis] + shape[axis + 1 :], generator=generator)
        probabilities = torch.rand(shape, generator=generator, dtype=torch.float64).softmax(axis)
        return logits.to(dtype), target, probabilities.to(dtype)

    def rows(self, logits, y, weight):
        """Losses of samples laid out as (samples, classes); weights as the documentation of SeparableLoss has them."""
        h = logits.softmax(-1)
        if weight is None:
            return -self.f(y, h).sum(-1)
        weight = weight.double()
        labelled = self.f(y, h) - self.f(torch.zeros_like(y), h)
        return -(weight * labelled + (weight * y).sum(-1, keepdim=True) * self.f(torch.zeros_like(y), h)).sum(-1)

    def expected(self, logits, target, reduction, weight=None, ignore_index=-100, label_smoothing=0.0):
        axis = min(logits.dim() - 1, 1)
        flat = logits.double().movedim(axis, -1)
        hard = not target.is_floating_point()
        y = F.one_hot(target, N_CLASSES).double() if hard else target.double().movedim(axis, -1)
        smooth = (1 - label_smoothing) * y + label_smoothing / N_CLASSES
        losses = self.rows(flat, smooth, weight)
        counts = torch.ones_like(losses)
        if hard:
            counts = counts if weight is None else weight.double()[target]
            counts = counts * (target != ignore_index)
            losses = losses * (target != ignore_index)
        return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / counts.sum()}[reduction]


@pytest.fixture(params=DEFINITIONS)
def tester(request):
    return LossTester(request.param)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradient(tester, options, reduction, shape):
    loss = tester.build(reduction=reduction, **options)
    logits, target, probabilities = tester.data(shape)
    for labels in (target, probabilities):
        z = logits.clone().requires_grad_()
        z_expected = logits.clone().requires_grad_()
        got, expected = loss(z, labels), tester.expected(z_expected, labels, reduction, **options)
        torch.testing.assert_close(got, expected)
        upstream = torch.rand_like(got)
        got.backward(upstream)
        expected.backward(upstream)
        torch.testing.assert_close(z.grad, z_expected.grad)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-4), (torch.float64, 1e-10), (torch.float16, 1e-4), (torch.bfloat16, 1e-4)],
)
@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32, torch.uint8, torch.int8])
def test_dtypes(tester, dtype, tolerance, index_dtype):
    logits, target, _ = tester.data((6, N_CLASSES), dtype)
    got = tester.build()(logits, target.to(index_dtype))
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = tester.expected(logits, target, "mean")
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


@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT}, {"label_smoothing": 0.1}, {"ignore_index": 1}], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_first_and_second_derivatives(tester, options, reduction):
    loss = tester.build(reduction=reduction, **{k: v.double() if k == "weight" else v for k, v in options.items()})
    logits, target, probabilities = tester.data((3, N_CLASSES, 2))
    z = logits.div(3).requires_grad_()
    for labels in (target, probabilities):
        assert torch.autograd.gradcheck(lambda z, y=labels: loss(z, y), z, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lambda z, y=labels: loss(z, y), z)


def test_gamma_is_the_derivative_of_f(tester):
    loss = tester.build()
    h = torch.linspace(0.05, 0.95, 7, dtype=torch.float64).requires_grad_()
    for y in (0.0, 1.0, 0.3, torch.linspace(0, 1, 7).double()):
        (expected,) = torch.autograd.grad(loss.f(y, h).sum(), h)
        torch.testing.assert_close(loss.gamma(y, h), expected)
        torch.testing.assert_close(loss.f(y, h), tester.f(y, h))
        torch.testing.assert_close(super(type(loss), loss).gamma(y, h), expected)  # by autograd of f
    assert torch.autograd.gradcheck(lambda h: loss.gamma(0.7, h), h)
    assert loss.gamma(torch.tensor([[0.0], [1.0]]).double(), h).shape == (2, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("winner", range(3))
def test_extreme_logits(tester, dtype, winner):
    target = torch.tensor([0, 1, 2])
    for soft in (False, True):
        z = torch.zeros(3, 3, dtype=dtype)
        z[:, winner] = 200.0
        z.requires_grad_()
        value = tester.build()(z, F.one_hot(target, 3).to(dtype) if soft else target)
        value.backward()
        assert value.isfinite()
        assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["taylorglo", "brier", "cross_entropy"])
def test_masked_class(name):
    """A class with a logit of minus infinity, as attention and action masks make them."""
    tester = LossTester(name)
    logits, target, _ = tester.data((6, N_CLASSES))
    target = target.clamp(max=3)
    masked = torch.cat([logits[:, :4], torch.full((6, 1), -torch.inf)], dim=1).requires_grad_()
    value = tester.build()(masked, target)
    value.backward()
    finite = torch.cat([logits[:, :4], torch.full((6, 1), -800.0)], dim=1)
    torch.testing.assert_close(value, tester.build()(finite, target))
    assert masked.grad.isfinite().all()


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
    for reduction in ("mean", "sum", "none"):
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
    loss = tester.build(weight=WEIGHT.double(), ignore_index=3, label_smoothing=0.1, reduction="sum")
    other = tester.build(weight=torch.ones(N_CLASSES).double(), ignore_index=3, label_smoothing=0.1, reduction="sum")
    other.load_state_dict(loss.state_dict())
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), other):
        assert torch.equal(twin(logits, target), loss(logits, target))
        assert repr(twin) == repr(loss)


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
@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.1}], ids=str)
def test_compile(tester, soft, options):
    torch.compiler.reset()
    logits, target, probabilities = tester.data((6, N_CLASSES), torch.float32)
    labels = probabilities if soft else target
    loss = tester.build(**options)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    z, z_expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    got, expected = compiled(z, labels), loss(z_expected, labels)
    torch.testing.assert_close(got, expected)
    got.backward()
    expected.backward()
    torch.testing.assert_close(z.grad, z_expected.grad)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy_is_torchs(options, reduction, shape):
    logits, target, probabilities = LossTester.data(shape, torch.float32)
    ours, torchs = CrossEntropyLoss(reduction=reduction, **options), nn.CrossEntropyLoss(reduction=reduction, **options)
    torch.testing.assert_close(ours(logits, target), torchs(logits, target), equal_nan=True)
    if "ignore_index" not in options:  # torch refuses it beside probabilities
        torch.testing.assert_close(ours(logits, probabilities), torchs(logits, probabilities))


def test_cross_entropy_is_torchs_at_minus_infinity():
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [2.0, 0.5, -torch.inf]])
    for target in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        torch.testing.assert_close(CrossEntropyLoss()(logits, target), F.cross_entropy(logits, target))
        z, z_torch = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        CrossEntropyLoss()(z, target).backward()
        F.cross_entropy(z_torch, target).backward()
        torch.testing.assert_close(z.grad, z_torch.grad, equal_nan=True)
