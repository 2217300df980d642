"""The Brier score."""

from torch import Tensor

from tglo_lightning.losses.base import SeparableLoss


class BrierLoss(SeparableLoss):
    """Brier score, the squared error of the probabilities: ``f(y, h) = -(y - h)^2``.

    Summed over the classes and averaged over the samples. Arguments and shapes:
    :class:`~tglo_lightning.losses.ClassificationLoss`.
    """

    family = "brier"
    text = "-(y - h)^2"
    python = "-((y - h) ** 2)"

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``-(y - h)^2``."""
        return -((y - h) ** 2)
