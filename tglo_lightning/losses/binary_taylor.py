"""A polynomial loss for binary and multi-label targets."""

from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.family import Axis
from tglo_lightning.losses.functional import horner
from tglo_lightning.losses.pointwise import BinaryLoss


class BinaryTaylorLoss(BinaryLoss):
    r"""A polynomial of label and prediction, expanded where the prediction is right:

    .. math:: L = y \sum_{k=1}^3 \frac{p_k}{k} (1 - h)^k + (1 - y) \sum_{k=1}^3 \frac{n_k}{k} h^k

    With all coefficients 1 it is cross-entropy's Taylor expansion of order 3. The first coefficients are the slopes at
    a right prediction; the last decide how hard a wrong one is pulled. Positive and negative targets have their own,
    as in the asymmetric loss.

    Args:
        p1: coefficient of the first power for positive targets; ``p2``, ``p3``: of the second and third.
        n1: coefficient of the first power for negative targets; ``n2``, ``n3``: of the second and third.
        options: those of :class:`~tglo_lightning.losses.BinaryLoss`.
    """

    family = "binary_taylor"
    axes = tuple(Axis(f"{side}{k}", default=1.0, spread=0.5) for side in "pn" for k in (1, 2, 3))
    python = "y * m * ({p1} + m * ({p2} / 2 + m * {p3} / 3)) + (1 - y) * h * ({n1} + h * ({n2} / 2 + h * {n3} / 3))"

    def __init__(
        self, p1: float = 1.0, p2: float = 1.0, p3: float = 1.0, n1: float = 1.0, n2: float = 1.0, n3: float = 1.0,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__((p1, p2, p3, n1, n2, n3), **options)

    @property
    def formula(self) -> str:
        """The loss in plain text."""
        sides = []
        for name, base, values in (("y", "(1 - h)", self.theta[:3]), ("(1 - y)", "h", self.theta[3:])):
            parts = (f"{v / k:.4g} {base}{f'^{k}' if k > 1 else ''}" for k, v in enumerate(values.tolist(), start=1))
            sides.append(f"{name} ({' + '.join(parts)})")
        return " + ".join(sides)

    def values(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each logit."""
        p1, p2, p3, n1, n2, n3 = self.parameters_of(input)
        h, missing = torch.sigmoid(input), torch.sigmoid(-input)
        positive = horner([p1, p2 / 2, p3 / 3], missing) * missing
        negative: Tensor = horner([n1, n2 / 2, n3 / 3], h) * h
        return target * positive + (1 - target) * negative

    @property
    def trainable(self) -> bool:
        """Whether an undecided output, ``h = 1/2``, is pulled to its target, positive or negative."""
        p, n = self.theta[:3], self.theta[3:]
        halves = torch.tensor([1.0, 0.5, 0.25], dtype=p.dtype, device=p.device)
        return bool((p * halves).sum() > 0 and (n * halves).sum() > 0)
