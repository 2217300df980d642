"""Every family of the package beside its definition, written down a second time."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from tglo_lightning.losses import FAMILIES

THETA = [0.3, 0.6, -1.2, 0.8, 0.5, 1.7, -0.4, 0.9]
PRIORS = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
N_CLASSES = len(PRIORS)


def taylor(y, h):
    t0, t1, t2, t3, t4, t5, t6, t7 = THETA
    y, h = y - t0, h - t1
    return t2 * h + t3 * h**2 + t4 * h**3 + t5 * y * h + t6 * y * h**2 + t7 * y**2 * h


def adjusted(h):
    return h * PRIORS / (h * PRIORS).sum(-1, keepdim=True)


# f(y, h) at the default parameters, the classes last; for a loss that is not separable, minus what a class adds
DEFINITIONS = {
    "taylorglo": taylor,
    "baikal": lambda y, h: h.log() - y / h,
    "brier": lambda y, h: -(y - h).square(),
    "class_weights": lambda y, h: y * h.log(),
    "cross_entropy": lambda y, h: y * h.log(),
    "focal": lambda y, h: y * (1 - h) ** 2 * h.log(),
    "forward": lambda y, h: y * (0.8 * h + 0.2 * (1 - h) / (h.shape[-1] - 1)).log(),
    "gce": lambda y, h: y * (h**0.7 - 1) / 0.7,
    "logit_adjustment": lambda y, h: y * adjusted(h).log(),
    "mae": lambda y, h: y * (h - 1),
    "nce_rce": lambda y, h: -y * (h.log() / h.log().sum(-1, keepdim=True) + 4 * (1 - h)),
    "sce": lambda y, h: y * (0.1 * h.log() + 4 * (h - 1)),
    "smoothing": lambda y, h: y * h.log(),  # its labels are smoothed by 0.1
    "taylor_ce": lambda y, h: -y * ((1 - h) + (1 - h) ** 2 / 2),
}
OURS = sorted(
    name for name, each in FAMILIES.items() if each.__module__.startswith("tglo_lightning.") and each.kind == "classes"
)


class LossTester:
    """Compares a family with its definition, in float64 and with one-hot labels."""

    def __init__(self, name):
        self.name, self.family, self.f = name, FAMILIES[name], DEFINITIONS[name]
        self.takes_smoothing = name != "smoothing"

    def build(self, theta=None, **options):
        """The loss with the parameters of the definition, or others."""
        if "priors" in inspect.signature(self.family).parameters:
            options.setdefault("priors", PRIORS)
        if theta is not None and len(theta) > len(self.family.axes) > 0:
            options.pop("priors", None)
        defaults = THETA if self.name == "taylorglo" else [axis.default for axis in self.family.axes]
        return self.family.of(defaults if theta is None else theta, **options)

    @staticmethod
    def data(shape, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        axis = min(len(shape) - 1, 1)
        target = torch.randint(N_CLASSES, shape[:axis] + shape[axis + 1 :], generator=generator)
        probabilities = torch.rand(shape, generator=generator, dtype=torch.float64).softmax(axis)
        return logits.to(dtype), target, probabilities.to(dtype)

    def rows(self, logits, y, weight):
        """Losses of samples laid out as (samples, classes); weights as the documentation has them."""
        h = logits.softmax(-1)
        if weight is None:
            return -self.f(y, h).sum(-1)
        labelled = self.f(y, h) - self.f(torch.zeros_like(y), h)
        return -(weight * labelled + (weight * y).sum(-1, keepdim=True) * self.f(torch.zeros_like(y), h)).sum(-1)

    def expected(self, logits, target, reduction, weight=None, ignore_index=-100, label_smoothing=0.0):
        axis = min(logits.dim() - 1, 1)
        flat = logits.double().movedim(axis, -1)
        hard = not target.is_floating_point()
        if self.name == "smoothing":
            label_smoothing = 0.1
        if self.name == "class_weights":
            weight = 1 / PRIORS / N_CLASSES * (1 if weight is None else weight)
        weight = None if weight is None else weight.double()
        y = F.one_hot(target, N_CLASSES).double() if hard else target.double().movedim(axis, -1)
        smooth = (1 - label_smoothing) * y + label_smoothing / N_CLASSES
        losses = self.rows(flat, smooth, weight)
        counts = torch.ones_like(losses)
        if hard:
            counts = counts if weight is None else weight[target]
            counts = counts * (target != ignore_index)
            losses = losses * (target != ignore_index)
        return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / counts.sum()}[reduction]


@pytest.fixture(params=OURS)
def tester(request):
    return LossTester(request.param)
