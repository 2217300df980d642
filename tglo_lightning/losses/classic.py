"""Classic losses as members of the family."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.losses.base import SeparableLoss
from tglo_lightning.losses.functional import wrapped

__all__ = ["BaikalLoss", "BrierLoss", "CrossEntropyLoss"]


class CrossEntropyLoss(SeparableLoss):
    """Cross-entropy, ``f(y, h) = y log h``. Arguments and shapes: :class:`SeparableLoss`.

    It computes what :func:`torch.nn.functional.cross_entropy` computes, and besides knows its ``f`` and ``gamma``.
    """

    name = "CrossEntropyLoss"

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        return "y log(h)"

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``y log h``, zero where the label is zero however small ``h`` is."""
        y = torch.as_tensor(y, dtype=h.dtype, device=h.device)
        return torch.where(y == 0, torch.zeros_like(log_h), y * log_h)

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``y / h``, zero where the label is zero."""
        y = torch.as_tensor(y, dtype=h.dtype, device=h.device)
        positive = y != 0
        return torch.where(positive, y / torch.where(positive, h, torch.ones_like(h)), torch.zeros_like(y * h))

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)``, by torch's own kernel where it can be used."""
        if wrapped(target):  # torch's kernel looks at the targets
            return super().indexed(logits, target)
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)


class BrierLoss(SeparableLoss):
    """Brier score, the squared error of the probabilities: ``f(y, h) = -(y - h)^2``.

    Summed over the classes and averaged over the samples. Arguments and shapes: :class:`SeparableLoss`.
    """

    name = "BrierLoss"

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        return "-(y - h)^2"

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``-(y - h)^2``."""
        return -((y - h) ** 2)

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``2 (y - h)``."""
        return 2 * (y - h)


class BaikalLoss(SeparableLoss):
    r"""Baikal loss, ``f(y, h) = log h - y / h``. Arguments and shapes: :class:`SeparableLoss`.

    Found by genetic programming: Gonzalez and Miikkulainen, *Improved Training Speed, Accuracy, and Data Utilization
    Through Loss Function Optimization* (arXiv 1905.11528). ``1 / h`` saturates where it would overflow (beyond a gap
    of some 80 in the logits in float32, 630 in float64), so that the gradient stays a number.
    """

    name = "BaikalLoss"

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        return "log(h) - y / h"

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``log h - y / h``."""
        lowest = 0.9 * math.log(torch.finfo(h.dtype).tiny)
        y = torch.as_tensor(y, dtype=h.dtype, device=h.device)
        inverse = torch.exp(-log_h.clamp(min=lowest))
        return log_h - torch.where(y == 0, torch.zeros_like(inverse), y * inverse)

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``1 / h + y / h^2``."""
        return 1 / h + y / h**2
