"""Label smoothing as a family, with the smoothing as its parameter."""

from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.family import Axis


class SmoothedCrossEntropyLoss(LinearLoss):
    r"""Cross-entropy on smoothed labels, :math:`-\sum_k ((1 - \alpha) y_k + \alpha / n) \log h_k`.

    It computes what ``CrossEntropyLoss(label_smoothing=alpha)`` computes. As a family of its own it can be searched
    over, and a whole population of values of ``alpha`` trains in one pass.

    Args:
        alpha: smoothing in [0, 1]; 0.1 as in the paper.
        options: ``weight``, ``ignore_index`` and ``reduction`` of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Szegedy et al., arXiv 1512.00567.
    """

    family = "smoothing"
    axes = (Axis("alpha", default=0.1, low=0.0, high=1.0),)
    text = "y log(h), labels smoothed by {alpha}"
    python = "y * log_h"

    def __init__(self, alpha: float = 0.1, **options: Any) -> None:
        super().__init__((alpha,), **options)

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``log h``, which meets a label that is smoothed already."""
        return log_h

    @property
    def label_smoothing(self) -> float:
        """``alpha``, as a number."""
        return float(self.theta[0])

    @label_smoothing.setter
    def label_smoothing(self, value: float) -> None:
        """Accept the default alone: ``alpha`` decides."""
        if value:
            raise ValueError(f"{self.name} smooths by `alpha`; give no `label_smoothing`, got {value}.")

    @property
    def smooths(self) -> bool:
        """Always true: under :func:`torch.func.vmap` ``alpha`` is a whole population's."""
        return True

    def alpha(self, dtype: torch.dtype) -> Tensor:
        """The smoothing as a scalar tensor."""
        return self.theta[0].to(dtype)
