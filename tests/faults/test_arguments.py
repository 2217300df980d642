"""Every argument of the public interface, with values of wrong kinds and sizes: it works, or it says which is wrong."""

import math
import warnings

import numpy as np
import pytest
import torch
from helpers.searches import run
from torch import nn

from tglo_lightning import (
    AttractionMonitor,
    RobustnessMonitor,
    TaylorGLO,
    attacks,
    data,
    losses,
    models,
    search,
    theory,
)
from tglo_lightning.evaluation import ProcessEvaluator, VectorizedEvaluator
from tglo_lightning.module import LossSlot

# What users pass by mistake, or a config makes of what they meant
VALUES = [
    None, True, False, 0, 1, -1, 3, 10**9, 0.0, 0.5, -0.5, 1.5, math.nan, math.inf, -math.inf, "", "x", "mean", "0.1",
    b"x", [], [1], [0.5, 0.5], ["a"], [None], [[1.0], [2.0]], (), (0, 1), (1, 0), {}, {"a": 1}, set(), object(), int,
    print, lambda *args: None, np.float32(0.5), np.int64(2), np.array([1.0]), np.array("x"), torch.tensor(1.0),
    torch.tensor([0.5, math.nan]), torch.zeros(3), torch.zeros(2, 2), torch.zeros(0), torch.ones(3, dtype=torch.long),
    torch.ones(8, dtype=torch.complex64), nn.Linear(1, 1), 1j, range(3),
]  # fmt: skip

THETA = [0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -2.0, 0.0]
LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 0])


def called(loss):
    """A loss together with its first call."""

    def call(**kwargs):
        return loss(**kwargs)(LOGITS, TARGET)

    call.__name__ = loss.__name__
    return call


def forward(logits, target):
    return losses.TaylorGLOLoss(THETA)(logits, target)


def searched(**kwargs):
    return run(objective=search.Objective(**kwargs), generations=1)


def liked(original):
    return losses.loss_like(original, "taylorglo", THETA)


def minimized(**kwargs):
    """``minimize`` of a function that trains nothing."""

    def fn(loss):
        return loss(LOGITS, TARGET)

    finals = search.Finals(finalists=1, seeds=1, confirm=2)
    given = {"fn": fn, "num_classes": 3, "generations": 1, "population": 3, "finals": finals, "progress": False}
    return search.minimize(**given | kwargs)


def network(kind):
    def build(**kwargs):
        return kind(**kwargs)

    build.__name__ = kind.__name__
    return build


class Attacked(nn.Module):
    """A linear classifier of images (1, 2, 2)."""

    def __init__(self):
        super().__init__()
        self.net, self.criterion = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), nn.CrossEntropyLoss()

    def forward(self, x):
        return self.net(x)


def attacked(**kwargs):
    module = Attacked().eval()
    x, y = torch.rand(4, 1, 2, 2), TARGET
    given = {"data": (x, y), "attacks": attacks.FGSM(), "epsilons": 0.1, "checks": False} | kwargs
    return attacks.evaluate_robustness(module, **given)


LOSS = {"weight": None, "ignore_index": -100, "label_smoothing": 0.0, "reduction": "mean"}
INPUTS = {"input_shape": (1, 28, 28), "num_classes": 10}
# What is called, and arguments that work
CALLS = [
    (TaylorGLO, {
        "loss": "criterion", "monitor": "val/acc", "mode": "max", "generations": 2, "population": 4,
        "space": "smoothing", "strategy": "cmaes", "budget": 3, "finals": 2, "init": "module", "seed": 0,
        "evaluator": "auto", "journal": None, "resume": True, "report": False,
    }),
    (AttractionMonitor, {
        "every_n_epochs": 1, "samples": 5, "loss": "criterion", "through": "training_step", "seed": 0,
        "filename": "a.npz",
    }),
    (RobustnessMonitor, {
        "attack": "fgsm", "every_n_epochs": 1, "epsilon": 0.1, "norm": "linf", "losses": ("own",), "weight": 0.5,
        "samples": None, "bounds": (0.0, 1.0), "normalize": None, "normalized_data": False, "loss": "criterion",
        "seed": 0,
    }),
    (called(losses.TaylorGLOLoss), {"theta": THETA, **LOSS}),
    (called(losses.TaylorGLOLoss), {"order": 3}),
    (called(losses.SmoothedCrossEntropyLoss), {"alpha": 0.1, "ignore_index": -100, "reduction": "mean"}),
    (called(losses.BaikalLoss), LOSS),
    (called(losses.BrierLoss), LOSS),
    (called(losses.CrossEntropyLoss), LOSS),
    (forward, {"logits": LOGITS, "target": TARGET}),
    (losses.as_loss, {"loss": THETA}),
    (losses.cross_entropy_expansion, {"order": 3}),
    (losses.published_theta, {"name": "mnist_published"}),
    (liked, {"original": nn.CrossEntropyLoss()}),
    (theory.trainability, {"loss": THETA, "num_classes": 3}),
    (theory.zero_error, {"loss": THETA, "num_classes": 3}),
    (theory.attraction_coefficients, {"loss": THETA, "num_classes": 3}),
    (theory.attraction_curve, {"loss": THETA, "num_classes": 3, "eps": [0.1]}),
    (theory.equilibria, {"loss": THETA, "num_classes": 3}),
    (theory.explain, {"loss": THETA, "num_classes": 3}),
    (theory.to_minimal, {"theta": THETA}),
    (theory.from_minimal, {"c": [0.1, 0.2, 0.3, 0.4]}),
    (theory.attraction, {"loss": THETA, "logits": LOGITS, "target": TARGET}),
    (theory.logit_velocity, {"loss": THETA, "logits": LOGITS, "target": TARGET}),
    (search.SearchSettings, {
        "generations": 2, "population": 4, "space": "taylorglo", "strategy": "random", "finals": 3, "budget": 3,
        "seed": 0,
    }),
    (search.TaylorSpace, {
        "order": 3, "coordinates": "minimal", "constraint": "trainable", "step": False, "spread": 1.2,
    }),
    (search.FamilySpace, {"family": "smoothing", "step": True}),
    (search.ProductSpace, {"spaces": [search.TaylorSpace()]}),
    (search.CMAES, {"sigma": 1.0}),
    (search.Finals, {"finalists": 2, "seeds": 2, "confirm": 3, "level": 0.05}),
    (search.Budget, {"epochs": 3, "timeout": None, "min_fitness_after": (1, 0.5), "callbacks": ()}),
    (search.Budget, {"steps": 3}),
    (search.LossSpec, {"family": "smoothing", "theta": (0.1,)}),
    (search.Criterion, {"losses": (), "step": 0.5}),
    (searched, {"num_classes": 3, "mode": "max"}),
    (minimized, {"num_classes": 3, "original": None, "settings": None}),
    (LossSlot, {"path": "criterion"}),
    (VectorizedEvaluator, {"chunk_size": 2, "compile": False}),
    (ProcessEvaluator, {"workers": 2, "inner": None, "threads": 1, "start_method": None}),
    (attacks.FGSM, {"loss": "own"}),
    (attacks.PGD, {"loss": "own", "steps": 2, "step_size": None, "restarts": 1, "random_start": True}),
    (attacks.Square, {"queries": 2, "restarts": 1}),
    (attacks.HopSkipJump, {"steps": 1, "samples": 2}),
    (attacks.AutoAttack, {"steps": 2, "queries": 2}),
    (attacked, {
        "attacks": attacks.FGSM(), "epsilons": 0.1, "norm": "linf", "bounds": (0.0, 1.0), "normalize": None,
        "normalized_data": False, "loss": "criterion", "samples": None, "batch_size": 2, "seed": 0,
    }),
    (data.DigitsDataModule, {
        "train_size": 100, "val_size": 50, "label_noise": 0.0, "batch_size": 8, "seed": 0, "augment": None,
    }),
    (data.MNISTDataModule, {
        "source": None, "val_size": 5, "train_fraction": 1.0, "label_noise": 0.0, "batch_size": 8, "seed": 0,
        "augment": None, "normalize": True, "cache_dir": None,
    }),
    (data.TabularDataModule, {
        "source": "wine", "target": "class", "val_fraction": 0.2, "test_fraction": 0.2, "train_fraction": 1.0,
        "label_noise": 0.0, "batch_size": 8, "seed": 0,
    }),
    (data.BatchAugmentation, {
        "crop_padding": 4, "flip": True, "cutout": 0, "cutmix": 0.0, "cutmix_alpha": 1.0, "mixup": 0.0,
        "mixup_alpha": 1.0,
    }),
    (network(models.MLP), {**INPUTS, "hidden": (4,)}),
    (network(models.SmallCNN), {**INPUTS, "channels": (2, 2)}),
    (network(models.LeNet5), {**INPUTS, "width": 0.1}),
    (network(models.ResNet), {**INPUTS, "depth": 8, "width": 0.1, "aux": 0}),
]  # fmt: skip
CASES = [(call, given, name) for call, given in CALLS for name in given]


def names(argument):
    """What a message may call an argument."""
    others = {
        "epochs": ["steps", "min_fitness_after"],
        "family": ["space"],
        "alpha": ["theta"],
        "path": ["loss"],
        # A loss may be given by its theta, a theta by a name
        "loss": ["theta"],
        "theta": ["loss"],
        "name": ["theta"],
        "logits": ["input"],
        "original": ["weight", "fn"],
    }
    return [argument, *others.get(argument, [])]


@pytest.mark.parametrize(("call", "given", "name"), CASES, ids=lambda v: getattr(v, "__name__", str(v)[:12]))
def test_an_argument_works_or_is_named(call, given, name):
    call(**given)
    wrong = []
    for value in VALUES:
        # Too large to be tried is not wrong
        if type(value) is int and value == 10**9:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(**(given | {name: value}))
        except (TypeError, ValueError, OSError) as error:
            if not any(known in str(error) for known in names(name)):
                wrong.append(f"{value!r}: {type(error).__name__} without its name: {str(error)[:150]}")
        except ImportError:
            continue
        except Exception as error:
            wrong.append(f"{value!r}: {type(error).__name__}: {str(error)[:150]}")
    assert not wrong, "\n".join(wrong)
