"""Binary cross-entropy with smoothed labels."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.losses.family import Axis
from tglo_lightning.losses.pointwise import BinaryLoss


class BinarySmoothingLoss(BinaryLoss):
    """Binary cross-entropy, its labels ``(1 - alpha) y + alpha / 2``.

    Args:
        alpha: smoothing, in [0, 1]. At 0 the loss is binary cross-entropy.
        options: those of :class:`~tglo_lightning.losses.BinaryLoss`.
    """

    family = "binary_smoothing"
    axes = (Axis("alpha", default=0.1, low=0.0, high=1.0),)
    text = "-y log(h) - (1 - y) log(1 - h), labels smoothed by {alpha}"
    python = "-((1 - {alpha}) * y + {alpha} / 2) * log_h - ((1 - {alpha}) * (1 - y) + {alpha} / 2) * log_m"

    def __init__(self, alpha: float = 0.1, **options: Any) -> None:
        super().__init__((alpha,), **options)

    def values(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each logit."""
        (alpha,) = self.parameters_of(input)
        labels = (1 - alpha) * target + alpha / 2
        return -labels * F.logsigmoid(input) - (1 - labels) * F.logsigmoid(-input)
