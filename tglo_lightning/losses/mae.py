"""The mean absolute error of the probabilities."""

import torch
from torch import Tensor

from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.classification import labelled


class MAELoss(LinearLoss):
    """Mean absolute error, ``f(y, h) = y (h - 1)``: with a hard label ``1 - h_T``, half of ``sum_k |y_k - h_k|``.

    It resists symmetric label noise and trains slowly, the more classes the slower. Arguments and shapes:
    :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Ghosh et al., arXiv 1712.09482.
    """

    family = "mae"
    text = "y (h - 1)"
    python = "y * (h - 1)"

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``h - 1``."""
        return h - 1

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``y``."""
        return labelled(y, torch.ones_like(h))
