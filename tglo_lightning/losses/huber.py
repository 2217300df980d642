"""The Huber loss."""

from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.family import Axis
from tglo_lightning.losses.pointwise import RegressionLoss


class HuberLoss(RegressionLoss):
    """Huber loss: ``x^2 / 2`` up to ``delta``, then ``delta (|x| - delta / 2)``.

    Args:
        delta: residual from which the loss grows linearly, above 0, in units of the target.
        options: those of :class:`~tglo_lightning.losses.PointwiseLoss`.

    Source: Huber, Annals of Mathematical Statistics 35 (1964).
    """

    family = "huber"
    axes = (Axis("delta", default=1.0, low=0.0),)
    text = "Huber loss of the residual, delta = {delta}"
    python = "x.abs().clamp(max={delta}) * (x.abs() - x.abs().clamp(max={delta}) / 2)"

    def __init__(self, delta: float = 1.0, **options: Any) -> None:
        super().__init__((delta,), **options)

    def residual_values(self, x: Tensor) -> Tensor:
        """The loss of each residual."""
        (delta,) = self.parameters_of(x)
        size = x.abs()
        within = torch.minimum(size, delta.expand_as(size))
        return within * (size - within / 2)
