"""The function that is written computes what the loss does, and needs torch alone."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helpers.searches import run
from torch import nn

from tglo_lightning.losses import FAMILIES, ClassificationLoss, CrossEntropyLoss, TaylorGLOLoss, loss_options, robust
from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.class_priors import PriorLoss
from tglo_lightning.search import Criterion, LossSpec, SearchResult, export_loss

OURS = {name: each for name, each in sorted(FAMILIES.items()) if each.__module__.startswith("tglo_lightning.")}
OWN = [name for name, each in OURS.items() if each.kind == "classes"]
OTHERS = [name for name in OURS if name not in OWN]
WEIGHT = torch.tensor([0.5, 1.0, 2.5])


def exported(given, name="metalearned_loss"):
    code = export_loss(given)
    assert "tglo_lightning" not in code
    space = {}
    exec(code, space)
    return space[name]


def made(name, **options):
    kind = FAMILIES[name]
    given = {"priors": [0.2, 0.3, 0.5]} if issubclass(kind, PriorLoss) else {}
    if kind is TaylorGLOLoss:
        return TaylorGLOLoss([0.1, 0.4, *range(1, 7)], **options)
    if name == "smoothing":
        options.pop("label_smoothing", None)
    return kind(**given, **options)


def data(shape=(), dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(16, 3, *shape, generator=generator, dtype=dtype)
    target = torch.randint(3, (16, *shape), generator=generator)
    soft = torch.rand(16, 3, *shape, generator=generator, dtype=dtype)
    return logits, target, soft / soft.sum(1, keepdim=True)


def compared(loss, function, output, target):
    """Values and gradients of a loss and of its export."""
    one, other = output.clone().requires_grad_(), output.clone().requires_grad_()
    expected, found = loss(one, target), function(other, target)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [{}, {"weight": WEIGHT}, {"label_smoothing": 0.2}, {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": 1}],
    ids=["plain", "weighted", "smoothed", "all"],
)
@pytest.mark.parametrize("name", OWN)
def test_every_family(name, options):
    for reduction in ("mean", "sum", "none"):
        loss = made(name, reduction=reduction, **options)
        function = exported(loss)
        for shape in ((), (2, 2)):
            logits, target, soft = data(shape)
            target.view(-1)[0] = loss.ignore_index
            for labels in (target, soft):
                compared(loss, function, logits, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OWN)
def test_other_types(name, dtype):
    logits, target, _ = data(dtype=dtype)
    loss = made(name)
    torch.testing.assert_close(exported(loss)(logits, target), loss(logits, target), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_masked_classes_and_sure_outputs(name):
    logits, target, _ = data(dtype=torch.float32, scale=10.0)
    logits[:, 2], target[:] = -torch.inf, target.clamp(max=1)
    loss = made(name)
    torch.testing.assert_close(exported(loss)(logits, target), loss(logits, target), rtol=1e-4, atol=1e-4)


def test_it_needs_nothing_of_ours(tmp_path):
    path = tmp_path / "exported.py"
    code = export_loss(robust(10), path)
    assert path.read_text() == code
    assert len(code.splitlines()) < 35
    script = (
        "import sys, torch, exported; z = torch.zeros(2, 10); "
        "print(exported.metalearned_loss(z, torch.tensor([0, 1])).item(), "
        "any('tglo' in name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{script}"],
                          cwd=tmp_path, capture_output=True, text=True, check=True)  # fmt: skip
    value, ours = done.stdout.split()
    assert float(value) == pytest.approx(robust(10)(torch.zeros(2, 10), torch.tensor([0, 1])).item(), rel=1e-6)
    assert ours == "False"


@pytest.fixture(scope="module")
def result():
    return run()


def test_what_a_search_kept(result, tmp_path):
    options = [{"weight": WEIGHT.tolist(), "ignore_index": 2, "label_smoothing": 0.3, "reduction": "sum"}]
    best = replace(result.best, criterion=Criterion.of("gce", [0.5], step=0.3))
    kept = replace(result, kept="metalearned", best=best, settings={"original_options": options})
    original = nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2, label_smoothing=0.3, reduction="sum")
    logits, target, _ = data()
    torch.testing.assert_close(exported(kept)(logits, target), kept.loss(original)(logits, target))
    assert "0.3 times the learning rate" in export_loss(kept)
    kept.save(tmp_path / "search.json")
    assert export_loss(SearchResult.load(tmp_path / "search.json")) == export_loss(kept)


def test_the_original(result):
    options = [{"weight": WEIGHT.tolist(), "ignore_index": 2, "label_smoothing": 0.3}]
    kept = replace(result, kept="original", original=replace(result.original, name="CrossEntropyLoss"),
                   settings={"original_options": options})  # fmt: skip
    logits, target, _ = data()
    original = nn.CrossEntropyLoss(weight=WEIGHT.double(), ignore_index=2, label_smoothing=0.3)
    torch.testing.assert_close(exported(kept)(logits, target), original(logits, target))
    with pytest.raises(ValueError, match="kept the original loss, MyLoss"):
        export_loss(replace(kept, original=replace(kept.original, name="MyLoss")))


def test_several_losses(result):
    criterion = Criterion((LossSpec("mae", ()), LossSpec("gce", (0.5,))))
    best = replace(result.best, criterion=criterion)
    space = {}
    exec(export_loss(replace(result, kept="metalearned", best=best, settings={}), name="mine"), space)
    logits, target, _ = data()
    for name, spec in zip(("mine", "mine_2"), criterion.losses, strict=True):
        torch.testing.assert_close(space[name](logits, target), spec.build()(logits, target))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", OTHERS)
def test_losses_of_other_targets(name, reduction):
    kind = FAMILIES[name]
    output = torch.linspace(-8, 8, 24, dtype=torch.float64).reshape(8, 3)
    target = torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = {"weight": WEIGHT.double()} | ({"pos_weight": WEIGHT.double() + 1} if kind.kind == "binary" else {})
    shifted = [axis.decode(axis.encode(axis.default) + 0.5) for axis in kind.axes]
    edges = [[2.0, 0.7], [0.0, 0.7], [-2.0, 3.0]] if name == "barron" else []
    for theta in ([axis.default for axis in kind.axes], shifted, *edges):
        for options in ({}, weights):
            loss = kind.of(theta, reduction=reduction, **options)
            compared(loss, exported(loss), output, target)
        if kind.kind == "binary":
            loss = kind.of(theta, reduction=reduction, probabilities=True)
            compared(loss, exported(loss), torch.sigmoid(output), target)
    half = output.half()
    torch.testing.assert_close(exported(kind())(half, target), kind()(half, target), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("original", "name"),
    [
        (nn.BCEWithLogitsLoss(pos_weight=WEIGHT, reduction="sum"), "asymmetric"),
        (nn.BCELoss(weight=WEIGHT), "binary_taylor"),
        (nn.MSELoss(reduction="none"), "barron"),
    ],
)
def test_what_a_search_kept_of_other_targets(result, original, name):
    loss = FAMILIES[name]()
    kept = replace(
        result,
        kept="metalearned",
        best=replace(result.best, criterion=Criterion.of(name, loss.theta.tolist())),
        original=replace(result.original, name=type(original).__name__),
        settings={"original_options": [loss_options(original)]},
    )
    output, target = torch.rand(5, 3), torch.rand(5, 3).round()
    torch.testing.assert_close(exported(kept)(output, target), kept.loss(original)(output, target))


def test_what_cannot_be_exported(tmp_path):
    class Squared(LinearLoss, abstract=True):
        def g(self, h, log_h):
            return -(log_h**2)

        @property
        def formula(self):
            return "-y log(h)^2"

    with pytest.raises(ValueError, match="Squared has no `python`"):
        export_loss(Squared())
    with pytest.raises(ValueError, match="`name` must be"):
        export_loss(CrossEntropyLoss(), name="a b")
    with pytest.raises(TypeError, match="`result` must be"):
        export_loss(nn.CrossEntropyLoss())
    with pytest.raises(OSError, match="directory"):
        export_loss(CrossEntropyLoss(), tmp_path)
    assert issubclass(Squared, ClassificationLoss)
