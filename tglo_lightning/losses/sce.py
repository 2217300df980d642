"""Symmetric cross-entropy, which is also Poly-1."""

from typing import Any

from torch import Tensor

from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.classification import labelled
from tglo_lightning.losses.family import Axis

LOG_ZERO = -4.0


class SCELoss(LinearLoss):
    r"""Symmetric cross-entropy, :math:`\alpha\,\mathrm{CE} + \beta\,\mathrm{RCE}`, for noisy labels.

    The reverse cross-entropy of a hard label is :math:`-\sum_k h_k \log y_k` with ``log 0 = -4`` as published, that is
    ``4 (1 - h_T)``. So ``f(y, h) = alpha y log h + 4 beta y (h - 1)``, which is taken for soft labels too.

    Poly-1 (Leng et al., arXiv 2204.12511), :math:`\mathrm{CE} + \epsilon_1 (1 - h_T)`, is the same family: ``alpha =
    1`` and ``beta = epsilon_1 / 4``.

    Args:
        alpha: weight of cross-entropy, at least 0; 0.1 as published for CIFAR-10 (6 for CIFAR-100).
        beta: weight of the reverse cross-entropy, at least 0; 1 as published for CIFAR-10 (0.1 for CIFAR-100).
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Wang et al., arXiv 1908.06112.
    """

    family = "sce"
    axes = (Axis("alpha", default=0.1, low=0.0), Axis("beta", default=1.0, low=0.0))
    python = "y * ({alpha} * log_h + 4 * {beta} * (h - 1))"

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, **options: Any) -> None:
        super().__init__((alpha, beta), **options)

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        alpha, beta = self.theta.tolist()
        return f"y ({alpha:.4g} log(h) + {-LOG_ZERO * beta:.4g} (h - 1))"

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``alpha log h + 4 beta (h - 1)``."""
        ce, reverse = self.theta.to(h.dtype)
        return ce * log_h - LOG_ZERO * reverse * (h - 1)

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``y (alpha / h + 4 beta)``."""
        ce, reverse = self.theta.to(h.dtype)
        return labelled(y, ce / h - LOG_ZERO * reverse)
