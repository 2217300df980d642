"""What CMA-ES searches over, and what of it is worth training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tglo_lightning.losses.functional import num_parameters
from tglo_lightning.theory import from_minimal, trainability

__all__ = ["CONSTRAINTS", "PARAMETERIZATIONS", "Constraint", "Space", "feasibility", "split_theta"]

CONSTRAINTS = ("published", "exact", "stable")
PARAMETERIZATIONS = ("full", "minimal", "smoothed_ce")

Constraint = Callable[[list[float]], bool]


@dataclass(frozen=True)
class Space:
    """The search vectors of a parameterisation.

    Attributes:
        parameterization: ``"full"``, ``theta`` itself; ``"minimal"``, the ``2 (order - 1)`` numbers that the weights
            can feel (see :func:`tglo_lightning.theory.to_minimal`); or ``"smoothed_ce"``, factor and label smoothing of
            cross-entropy, ``(log c, logit alpha - logit 0.1)``: the fair baseline of the other two.
        order: order of the polynomial.
        losses: losses that are searched for together, their parameters one after the other in each vector.
    """

    parameterization: str
    order: int
    losses: int = 1

    @property
    def dimension(self) -> int:
        """Length of a search vector."""
        sizes = {"full": num_parameters(self.order), "minimal": 2 * (self.order - 1), "smoothed_ce": 2}
        return self.losses * sizes[self.parameterization]

    def thetas(self, vectors: Sequence[Sequence[float]]) -> list[list[float]]:
        """The loss parameters that search vectors stand for."""
        if self.parameterization == "full":
            return [list(vector) for vector in vectors]
        tensor = torch.tensor(vectors, dtype=torch.float64).unflatten(1, (self.losses, -1))
        if self.parameterization == "minimal":
            thetas = from_minimal(tensor)
        else:
            thetas = torch.stack([tensor[..., 0].exp(), torch.sigmoid(tensor[..., 1] - math.log(9))], dim=-1)
        values: list[list[float]] = thetas.flatten(1).tolist()
        return values


def split_theta(theta: Sequence[float], losses: int) -> list[list[float]]:
    """The parameters of each of ``losses`` losses that were searched for together.

    >>> split_theta([1.0, 0.1, 2.0, 0.2], 2)
    [[1.0, 0.1], [2.0, 0.2]]
    """
    size = len(theta) // losses
    return [list(theta[start : start + size]) for start in range(0, losses * size, size)]


def feasibility(
    constraint: str | Constraint | None, num_classes: int, losses: int = 1
) -> Callable[[list[list[float]]], list[bool]]:
    """The constraint as a function of a list of ``theta``: by its name, as given, or always true for ``None``.

    What the names mean says :func:`tglo_lightning.theory.trainability`. Of several losses each must satisfy it.
    """
    if constraint is None:
        return lambda thetas: [True] * len(thetas)
    if losses > 1:
        single = feasibility(constraint, num_classes)

        def all_of_them(thetas: list[list[float]]) -> list[bool]:
            parts = single([part for theta in thetas for part in split_theta(theta, losses)])
            return [all(parts[start : start + losses]) for start in range(0, len(parts), losses)]

        return all_of_them
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
