"""Gradient attacks, by foolbox, with a choice of the loss whose gradient they follow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.arguments import choice, number, optional
from tglo_lightning.attacks.base import Attack, project
from tglo_lightning.attacks.library import library
from tglo_lightning.attacks.model import LOSSES, AttackedModel


@dataclass(frozen=True)
class GradientAttack(Attack):
    """An attack along the gradient of a loss.

    Args:
        loss: ``"own"``: the loss that the network was trained with; ``"cross_entropy"``; or ``"margin"``, the margin
            between the logits of the true class and the best other one.
    """

    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        choice("loss", self.loss, LOSSES)

    @property
    def name(self) -> str:
        """Short name, such as ``"pgd-margin"``."""
        return f"{type(self).__name__.lower()}-{self.loss}"

    def descend(
        self, model: AttackedModel, x: Tensor, labels: Tensor, epsilon: float, norm: str, **options: Any
    ) -> Tensor:
        """One run of foolbox's gradient attack."""
        fb = library("foolbox", type(self).__name__)
        attack = _foolbox_attacks()[norm](**options)
        attack.model, attack.loss = model, self.loss
        adapter = fb.PyTorchModel(model, bounds=model.bounds, device=x.device)
        images: Tensor = attack.run(adapter, x, fb.Misclassification(labels), epsilon=epsilon)
        return images


@dataclass(frozen=True)
class FGSM(GradientAttack):
    """Fast gradient sign method (arXiv 1412.6572): one step of length epsilon along the sign of the gradient.

    In L2 the step follows the gradient itself. With ``loss="own"`` this is the attack of arXiv 2010.00788.
    """

    iterated = False

    def run(self, model: AttackedModel, x: Tensor, labels: Tensor, epsilon: float, norm: str) -> Tensor:
        """See :meth:`Attack.run`."""
        return self.descend(model, x, labels, epsilon, norm, steps=1, rel_stepsize=1.0, random_start=False)


@dataclass(frozen=True)
class PGD(GradientAttack):
    """Projected gradient descent (arXiv 1706.06083).

    Args:
        loss: see :class:`FGSM`; ``"margin"`` makes it the margin-loss attack.
        steps: steps of each run.
        step_size: length of a step, as a share of epsilon; 2.5 / ``steps`` by default.
        restarts: runs; an image counts as broken if any of them breaks it.
        random_start: start at a random point of the ball; without it the restarts are all the same.
    """

    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("steps", "restarts")
        object.__setattr__(self, "step_size", optional(number, "step_size", self.step_size, above=0))
        if self.restarts > 1 and not self.random_start:
            raise ValueError("`restarts` above 1 need `random_start=True`: the runs would all be the same.")

    def run(self, model: AttackedModel, x: Tensor, labels: Tensor, epsilon: float, norm: str) -> Tensor:
        """See :meth:`Attack.run`."""
        options = {
            "steps": self.steps,
            "rel_stepsize": 2.5 / self.steps if self.step_size is None else self.step_size,
            "random_start": self.random_start,
        }
        result = self.descend(model, x, labels, epsilon, norm, **options)
        for _ in range(self.restarts - 1):
            broken = model.predict(project(result, x, epsilon, norm, model.bounds)) != labels
            standing = (~broken).nonzero().squeeze(1)
            if not len(standing):
                break
            again = self.descend(model, x[standing], labels[standing], epsilon, norm, **options)
            result = result.index_copy(0, standing, again)
        return result


@cache
def _foolbox_attacks() -> dict[str, Any]:
    """Foolbox's gradient attacks, with our losses where it lets a subclass say."""
    bases = library("foolbox.attacks.gradient_descent_base")
    astensor = library("eagerpy").astensor

    class WithLoss:
        model: AttackedModel
        loss: str

        def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
            return lambda inputs: astensor(self.model.loss(self.loss, model(inputs).raw, labels.raw))

        def value_and_grad(self, loss_fn: Callable[[Any], Any], x: Any) -> tuple[Any, Any]:
            # Foolbox's own calls backward(), which reaches parameters that nobody knows of
            pixels = x.raw.detach().clone().requires_grad_()
            with torch.enable_grad():
                loss = loss_fn(astensor(pixels)).raw
            [gradient] = torch.autograd.grad(loss, pixels)
            return astensor(loss.detach()), astensor(gradient)

    return {
        "linf": type("LinfGradient", (WithLoss, bases.LinfBaseGradientDescent), {}),
        "l2": type("L2Gradient", (WithLoss, bases.L2BaseGradientDescent), {}),
    }
