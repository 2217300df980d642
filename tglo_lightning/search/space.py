"""What CMA-ES searches over, and what of it is worth training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tglo_lightning.losses.functional import num_parameters
from tglo_lightning.theory import from_minimal, trainability

__all__ = ["CONSTRAINTS", "PARAMETERIZATIONS", "Constraint", "Space", "feasibility"]

CONSTRAINTS = ("published", "exact", "stable")
PARAMETERIZATIONS = ("full", "minimal", "smoothed_ce")

Constraint = Callable[[list[float]], bool]


@dataclass(frozen=True)
class Space:
    """The search vectors of a parameterisation.

    Attributes:
        parameterization: ``"full"``, ``theta`` itself; ``"minimal"``, the ``2 (order - 1)`` numbers that the weights
            can feel (see :func:`tglo_lightning.theory.to_minimal`); or ``"smoothed_ce"``, factor and label smoothing of
            cross-entropy, ``(log c, logit alpha - logit 0.1)``: the fair opponent of the other two.
        order: order of the polynomial.
    """

    parameterization: str
    order: int

    @property
    def dimension(self) -> int:
        """Length of a search vector."""
        sizes = {"full": num_parameters(self.order), "minimal": 2 * (self.order - 1), "smoothed_ce": 2}
        return sizes[self.parameterization]

    def thetas(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        """The loss parameters that search vectors stand for."""
        if self.parameterization == "full":
            return [list(vector) for vector in vectors]
        tensor = torch.tensor(vectors, dtype=torch.float64)
        if self.parameterization == "minimal":
            thetas = from_minimal(tensor)
        else:
            thetas = torch.stack([tensor[:, 0].exp(), torch.sigmoid(tensor[:, 1] - math.log(9))], dim=1)
        values: list[list[float]] = thetas.tolist()
        return values


def feasibility(constraint: str | Constraint | None, num_classes: int) -> Callable[[list[list[float]]], list[bool]]:
    """The constraint as a function of a list of ``theta``: by its name, as given, or always true for ``None``.

    What the names mean says :func:`tglo_lightning.theory.trainability`.
    """
    if constraint is None:
        return lambda thetas: [True] * len(thetas)
    if callable(constraint):
        accepts = constraint
        return lambda thetas: [bool(accepts(theta)) for theta in thetas]
    name = constraint

    def named(thetas: list[list[float]]) -> list[bool]:
        if len(thetas[0]) == 2:
            # every smoothed cross-entropy trains
            return [True] * len(thetas)
        # One call for all of them: what it costs hardly depends on their number
        verdicts = trainability(torch.tensor(thetas, dtype=torch.float64), num_classes)
        accepted: list[bool] = getattr(verdicts, name).tolist()
        return accepted

    return named
