"""What CMA-ES searches over, and what of it is worth training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tglo_lightning.losses.functional import num_parameters
from tglo_lightning.theory import from_minimal, trainability

__all__ = ["CONSTRAINTS", "PARAMETERIZATIONS", "Constraint", "Space", "feasibility"]

CONSTRAINTS = ("published", "exact", "stable")
PARAMETERIZATIONS = ("full", "minimal")

Constraint = Callable[[list[float]], bool]


@dataclass(frozen=True)
class Space:
    """The search vectors of a parameterisation.

    Attributes:
        parameterization: ``"full"``, ``theta`` itself; or ``"minimal"``, the ``2 (order - 1)`` numbers that the
            weights can feel (see :func:`tglo_lightning.theory.to_minimal`).
        order: order of the polynomial.
    """

    parameterization: str
    order: int

    @property
    def dimension(self) -> int:
        """Length of a search vector."""
        return num_parameters(self.order) if self.parameterization == "full" else 2 * (self.order - 1)

    def thetas(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        """The loss parameters that search vectors stand for."""
        if self.parameterization == "full":
            return [list(vector) for vector in vectors]
        values: list[list[float]] = from_minimal(torch.tensor(vectors, dtype=torch.float64)).tolist()
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
        # One call for all of them: what it costs hardly depends on their number
        verdicts = trainability(torch.tensor(thetas, dtype=torch.float64), num_classes)
        accepted: list[bool] = getattr(verdicts, name).tolist()
        return accepted

    return named
