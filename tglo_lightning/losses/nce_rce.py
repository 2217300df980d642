"""Normalised cross-entropy with reverse cross-entropy."""

from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.classification import ClassificationLoss, labelled
from tglo_lightning.losses.family import Axis


class NCERCELoss(ClassificationLoss):
    r"""Normalised cross-entropy plus reverse cross-entropy, :math:`\log h_T / \sum_k \log h_k + b (1 - h_T)`.

    For noisy labels. The sum over the classes in the denominator keeps it from being separable: it has no ``f(y, h)``,
    and the theory does not explain it. Classes masked by a logit of minus infinity drop out of that sum.

    Args:
        b: weight of ``1 - h_T``, at least 0; 4 as published, which is the weight 1 with ``log 0 = -4`` (see
            :class:`~tglo_lightning.losses.SCELoss`).
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Ma et al., arXiv 2006.13554.
    """

    family = "nce_rce"
    axes = (Axis("b", default=4.0, low=0.0, spread=1.5),)
    text = "log(h_T) / sum_k log(h_k) + {b} (1 - h_T)"
    python = "-y * (log_h / log_h.masked_fill(z == -torch.inf, 0.0).sum(1, keepdim=True) + {b} * (1 - h))"

    def __init__(self, b: float = 4.0, **options: Any) -> None:
        super().__init__((b,), **options)

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """``y_k (log h_k / sum_j log h_j + b (1 - h_k))``."""
        log_h = logits.log_softmax(dim=1)
        masked = log_h == -torch.inf
        log_h = log_h.masked_fill(masked, 0.0)
        total = log_h.sum(dim=1, keepdim=True)
        total = total.masked_fill(total == 0, -1.0)  # all classes but one are masked
        normalised = (log_h / total).masked_fill(masked, 1.0)  # the limit
        return labelled(y, normalised + self.theta[0].to(logits.dtype) * (1 - logits.softmax(dim=1)))
