"""Classic losses as members of the family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.arguments import tensor_of
from tglo_lightning.losses.base import SeparableLoss
from tglo_lightning.losses.functional import wrapped

__all__ = ["BaikalLoss", "BrierLoss", "CrossEntropyLoss", "SmoothedCrossEntropyLoss"]


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


class SmoothedCrossEntropyLoss(SeparableLoss):
    r"""Cross-entropy with a factor, on smoothed labels: :math:`-c \sum_k ((1 - \alpha) y_k + \alpha / n) \log h_k`.

    The factor acts as a learning rate. These two are the classic part of what a search finds, so a search over them is
    the fair baseline of a search over TaylorGLO losses. ``theta`` is a buffer, as in
    :class:`~tglo_lightning.losses.TaylorGLOLoss`.

    Args:
        theta: the factor ``c`` above 0, and ``alpha`` in [0, 1].
        options: ``weight``, ``ignore_index`` and ``reduction`` of :class:`SeparableLoss`.

    Raises:
        ValueError: ``theta`` of another length or out of range.
    """

    name = "SmoothedCrossEntropyLoss"
    theta: Tensor

    def __init__(self, theta: Tensor | Sequence[float] = (1.0, 0.1), **options: Any) -> None:
        super().__init__(**options)
        theta = tensor_of("theta", theta, torch.float64).detach().clone()
        if theta.shape != (2,) or not (0 < theta[0] < math.inf and 0 <= theta[1] <= 1):
            raise ValueError(f"`theta` must be a factor above 0 and a smoothing in [0, 1], got {theta.tolist()}.")
        self.register_buffer("theta", theta)

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        return smoothed_formula(self.theta.tolist())

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``c y log h``, for a label that is smoothed already."""
        y = torch.as_tensor(y, dtype=h.dtype, device=h.device)
        return self.theta[0].to(h.dtype) * torch.where(y == 0, torch.zeros_like(log_h), y * log_h)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for class indices."""
        factor, alpha = self.theta.to(logits.dtype)
        log_h = logits.log_softmax(dim=1)
        hit = log_h.gather(1, target.unsqueeze(1)).squeeze(1)
        return -factor * ((1 - alpha) * hit + alpha * log_h.mean(dim=1))

    @property
    def label_smoothing(self) -> float:
        """``alpha``, as a number."""
        return float(self.theta[1])

    @label_smoothing.setter
    def label_smoothing(self, value: float) -> None:
        """``theta`` alone decides."""

    @property
    def smooths(self) -> bool:
        """Always: ``alpha`` may be a whole population's."""
        return True

    def smoothed(self, y: Tensor, num_classes: int) -> Tensor:
        """The labels after smoothing."""
        alpha = self.theta[1].to(y.dtype)
        return (1 - alpha) * y + alpha / num_classes


def smoothed_formula(theta: Sequence[float]) -> str:
    """``f(y, h)`` of :class:`SmoothedCrossEntropyLoss` in plain text."""
    return f"{theta[0]:.4g} y log(h), labels smoothed by {theta[1]:.4g}"


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
