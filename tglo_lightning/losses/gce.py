"""Generalised cross-entropy."""

from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.classification import labelled
from tglo_lightning.losses.family import Axis


class GCELoss(LinearLoss):
    """Generalised cross-entropy, ``f(y, h) = y (h^q - 1) / q``, between cross-entropy (q to 0) and MAE (q = 1).

    For noisy labels: the larger ``q``, the less a sample counts that the network is sure is something else.

    Args:
        q: exponent in [0, 1]; 0.7 as published. At 0 the loss is cross-entropy.
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Zhang and Sabuncu, arXiv 1805.07836.
    """

    family = "gce"
    axes = (Axis("q", default=0.7, low=0.0, high=1.0),)

    def __init__(self, q: float = 0.7, **options: Any) -> None:
        super().__init__((q,), **options)

    @property
    def expression(self) -> str:
        """``f(y, h)`` in Python, see :func:`~tglo_lightning.search.export_loss`."""
        q = float(self.theta[0])
        return f"y * torch.expm1({q} * log_h) / {q}" if q > 0 else "y * log_h"

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        q = f"{float(self.theta[0]):.4g}"
        return f"y (h^{q} - 1) / {q}" if self.theta[0] > 0 else "y log(h)"

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``(h^q - 1) / q``."""
        q = self.theta[0].to(h.dtype)
        positive = torch.where(q > 0, q, torch.ones_like(q))
        return torch.where(q > 0, torch.expm1(positive * log_h) / positive, log_h)

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``y h^(q - 1)``."""
        return labelled(y, h ** (self.theta[0].to(h.dtype) - 1))
