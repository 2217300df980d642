"""The Brier score."""

from __future__ import annotations

from torch import Tensor

from tglo_lightning.losses.base import SeparableLoss

__all__ = ["BrierLoss"]


class BrierLoss(SeparableLoss):
    """Brier score, the squared error of the probabilities: ``f(y, h) = -(y - h)^2``.

    Summed over the classes and averaged over the samples. Arguments and shapes:
    :class:`~tglo_lightning.losses.ClassificationLoss`.
    """

    family = "brier"

    @property
    def expression(self) -> str:
        """``f(y, h)`` in Python, see :func:`~tglo_lightning.search.export_loss`."""
        return "-((y - h) ** 2)"

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
