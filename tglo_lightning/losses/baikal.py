"""The Baikal loss."""

import math

import torch
from torch import Tensor

from tglo_lightning.losses.base import SeparableLoss
from tglo_lightning.losses.classification import labelled


class BaikalLoss(SeparableLoss):
    """Baikal loss, ``f(y, h) = log h - y / h``.

    ``1 / h`` saturates where it would overflow (beyond a gap of some 80 in the logits in float32, 630 in float64), so
    that the gradient stays a number. Arguments and shapes: :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: found by genetic programming in Gonzalez and Miikkulainen, *Improved Training Speed, Accuracy, and Data
    Utilization Through Loss Function Optimization* (arXiv 1905.11528).
    """

    family = "baikal"
    text = "log(h) - y / h"
    python = "log_h - y * torch.exp(-log_h.clamp(min=0.9 * math.log(tiny)))"

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``log h - y / h``."""
        lowest = 0.9 * math.log(torch.finfo(h.dtype).tiny)
        return log_h - labelled(y, torch.exp(-log_h.clamp(min=lowest)))

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``1 / h + y / h^2``."""
        return 1 / h + y / h**2
