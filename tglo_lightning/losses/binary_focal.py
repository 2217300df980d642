"""The focal loss for binary and multi-label targets."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.losses.family import Axis
from tglo_lightning.losses.pointwise import BinaryLoss


class BinaryFocalLoss(BinaryLoss):
    """Focal loss, ``-y (1 - h)^g log h - (1 - y) h^g log(1 - h)``.

    Args:
        g: focusing exponent, at least 0; 2 as published. At 0 the loss is binary cross-entropy.
        options: those of :class:`~tglo_lightning.losses.BinaryLoss`.

    Source: Lin et al., arXiv 1708.02002.
    """

    family = "binary_focal"
    axes = (Axis("g", default=2.0, low=0.0),)
    text = "-y (1 - h)^{g} log(h) - (1 - y) h^{g} log(1 - h)"
    python = "-y * torch.exp({g} * log_m) * log_h - (1 - y) * torch.exp({g} * log_h) * log_m"

    def __init__(self, g: float = 2.0, **options: Any) -> None:
        super().__init__((g,), **options)

    def values(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each logit."""
        (g,) = self.parameters_of(input)
        log_h, log_missing = F.logsigmoid(input), F.logsigmoid(-input)
        return -target * torch.exp(g * log_missing) * log_h - (1 - target) * torch.exp(g * log_h) * log_missing
