"""The focal loss."""

from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.family import Axis


class FocalLoss(LinearLoss):
    """Focal loss, ``f(y, h) = y (1 - h)^g log h``: samples that are learned already count less.

    Made for dense detection, where most samples are easy background.

    Args:
        g: focusing exponent, at least 0; 2 as published. At 0 the loss is cross-entropy.
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Lin et al., arXiv 1708.02002.
    """

    family = "focal"
    axes = (Axis("g", default=2.0, low=0.0),)
    text = "y (1 - h)^{g} log(h)"
    python = "y * (-torch.expm1(log_h)).clamp(min=tiny) ** {g} * log_h"

    def __init__(self, g: float = 2.0, **options: Any) -> None:
        super().__init__((g,), **options)

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``(1 - h)^g log h``."""
        # A power below 1 has no slope at 0
        missing = (-torch.expm1(log_h)).clamp(min=torch.finfo(h.dtype).tiny)
        masked = log_h == -torch.inf  # which would make the gradient 0 * infinity
        values = missing ** self.theta[0].to(h.dtype) * log_h.masked_fill(masked, 0.0)
        return torch.where(masked, log_h, values)
