"""Classic losses as members of the family."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.losses.base import SeparableLoss
from tglo_lightning.losses.family import Axis
from tglo_lightning.losses.functional import wrapped

__all__ = ["BaikalLoss", "BrierLoss", "CrossEntropyLoss", "SmoothedCrossEntropyLoss"]


class CrossEntropyLoss(SeparableLoss):
    """Cross-entropy, ``f(y, h) = y log h``. Arguments and shapes: :class:`SeparableLoss`.

    It computes what :func:`torch.nn.functional.cross_entropy` computes, and besides knows its ``f`` and ``gamma``.
    """

    family = "cross_entropy"

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


class SmoothedCrossEntropyLoss(SeparableLoss):
    r"""Cross-entropy on smoothed labels, :math:`-\sum_k ((1 - \alpha) y_k + \alpha / n) \log h_k`.

    It computes what ``CrossEntropyLoss(label_smoothing=alpha)`` computes. As a family of its own it can be searched
    over, and a whole population of values of ``alpha`` trains in one pass.

    Args:
        alpha: smoothing in [0, 1].
        options: ``weight``, ``ignore_index`` and ``reduction`` of :class:`SeparableLoss`.

    Raises:
        TypeError, ValueError: ``alpha`` is not a number, or out of range.

    Source: Szegedy et al., arXiv 1512.00567.
    """

    family = "smoothing"
    axes = (Axis("alpha", default=0.1, low=0.0, high=1.0),)

    def __init__(self, alpha: float = 0.1, **options: Any) -> None:
        super().__init__((alpha,), **options)

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        return f"y log(h), labels smoothed by {float(self.theta[0]):.4g}"

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``y log h``, for a label that is smoothed already."""
        y = torch.as_tensor(y, dtype=h.dtype, device=h.device)
        return torch.where(y == 0, torch.zeros_like(log_h), y * log_h)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for class indices."""
        alpha = self.theta[0].to(logits.dtype)
        log_h = logits.log_softmax(dim=1)
        hit = log_h.gather(1, target.unsqueeze(1)).squeeze(1)
        return -((1 - alpha) * hit + alpha * log_h.mean(dim=1))

    @property
    def label_smoothing(self) -> float:
        """``alpha``, as a number."""
        return float(self.theta[0])

    @label_smoothing.setter
    def label_smoothing(self, value: float) -> None:
        """``theta`` alone decides."""

    @property
    def smooths(self) -> bool:
        """Always true: under :func:`torch.func.vmap` ``alpha`` is a whole population's."""
        return True

    def smoothed(self, y: Tensor, num_classes: int) -> Tensor:
        """The labels after smoothing."""
        alpha = self.theta[0].to(y.dtype)
        return (1 - alpha) * y + alpha / num_classes


class BrierLoss(SeparableLoss):
    """Brier score, the squared error of the probabilities: ``f(y, h) = -(y - h)^2``.

    Summed over the classes and averaged over the samples. Arguments and shapes: :class:`SeparableLoss`.
    """

    family = "brier"

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

    family = "baikal"

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
