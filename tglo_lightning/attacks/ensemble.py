"""Square and AutoAttack, by pyautoattack."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.attacks.base import Attack
from tglo_lightning.attacks.library import UnitBox, library
from tglo_lightning.attacks.model import AttackedModel

NORM_NAMES = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class Square(Attack):
    """Random search over squares (arXiv 1912.00049), from the network's scores alone: no gradient can mislead it.

    Args:
        queries: forward passes a restart and image, at most.
        restarts: independent runs.
    """

    knowledge = "scores"

    queries: int = 1000
    restarts: int = 1

    def __post_init__(self) -> None:
        self.check_counts("queries", "restarts")

    def run(self, model: AttackedModel, x: Tensor, labels: Tensor, epsilon: float, norm: str) -> Tensor:
        """See :meth:`Attack.run`."""
        square = library("pyautoattack.square", "Square").SquareAttack
        unit = UnitBox(model)
        options = _options(unit, x, epsilon, norm)
        attack = square(unit, n_queries=self.queries, n_restarts=self.restarts, **options)
        return unit.back(attack.perturb(unit.there(x), labels))


@dataclass(frozen=True)
class AutoAttack(Attack):
    """The ensemble AutoAttack (arXiv 2003.01690) in its standard version: APGD-CE, targeted APGD-DLR and FAB, Square.

    With three classes the untargeted APGD-DLR and FAB take the place of the targeted ones, which need four; with two
    classes there is no DLR loss at all.

    Args:
        steps: steps of APGD and FAB. Fewer than the standard's 100 make it another, weaker attack.
        queries: queries of Square. Fewer than the standard's 5000 make it another, weaker attack.
    """

    knowledge = "ensemble"

    steps: int = 100
    queries: int = 5000

    def __post_init__(self) -> None:
        self.check_counts("steps", "queries")

    def run(self, model: AttackedModel, x: Tensor, labels: Tensor, epsilon: float, norm: str) -> Tensor:
        """See :meth:`Attack.run`."""
        build = library("pyautoattack", "AutoAttack").AutoAttack
        unit = UnitBox(model)
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        attack = build(unit, attacks=parts(classes), version="custom", **_options(unit, x, epsilon, norm))
        # What the standard version sets, and a custom one does not
        attack.apgd.n_restarts = attack.fab.n_restarts = attack.apgd_targeted.n_restarts = 1
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = self.steps
        attack.square.n_queries = self.queries
        with _aside():
            images, _ = attack.run_standard_evaluation(unit.there(x), labels, batch_size=len(x))
        return unit.back(images)


def parts(classes: int) -> list[str]:
    """The attacks of the standard AutoAttack that a number of classes allows."""
    if classes == 2:
        return ["apgd-ce", "fab", "square"]
    return ["apgd-ce", "apgd-dlr", "fab", "square"] if classes == 3 else ["apgd-ce", "apgd-t", "fab-t", "square"]


def _options(unit: UnitBox, x: Tensor, epsilon: float, norm: str) -> dict[str, Any]:
    # A seed out of the seeded global generator: with a fixed one each batch would get the same squares
    seed = int(torch.randint(2**31, ()))
    return {"norm": NORM_NAMES[norm], "eps": epsilon / unit.width, "seed": seed, "device": x.device}


@contextmanager
def _aside() -> Iterator[None]:
    """Keep AutoAttack's messages, and its tracing of the interpreter, from the user."""
    logger = logging.getLogger("auto-attack")
    level, trace = logger.level, sys.gettrace()
    restore: Callable[..., None] = sys.settrace
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        restore(trace)
