"""Forward correction for symmetric label noise."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from tglo_lightning.arguments import integer, optional
from tglo_lightning.losses.base import SeparableLoss
from tglo_lightning.losses.classification import ClassificationLoss, labelled
from tglo_lightning.losses.family import Axis


class ForwardCorrectionLoss(SeparableLoss):
    """Cross-entropy of the noisy label, ``f(y, h) = y log((1 - eta) h + eta (1 - h) / (n - 1))``.

    With symmetric noise a label is right with probability ``1 - eta`` and otherwise each other class, equally likely.

    Args:
        eta: rate of wrong labels in [0, 1]; the published method knows or estimates it, 0.2 is our default.
        num_classes: ``n``, needed for :meth:`f` and :meth:`gamma` alone; the loss itself counts its logits.
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Patrini et al., arXiv 1609.03683.
    """

    family = "forward"
    axes = (Axis("eta", default=0.2, low=0.0, high=1.0),)
    python = "y * ((1 - {eta}) * h + {eta} * (1 - h) / (n - 1)).clamp(min=tiny).log()"

    def __init__(self, eta: float = 0.2, *, num_classes: int | None = None, **options: Any) -> None:
        super().__init__((eta,), **options)
        self.num_classes = optional(integer, "num_classes", num_classes, 2)

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        eta = float(self.theta[0])
        return f"y log({1 - eta:.4g} h + {eta:.4g} (1 - h) / (n - 1))"

    def for_classes(self, num_classes: int) -> Self:
        """The same loss, which knows its number of classes."""
        options = {name: getattr(self, name) for name in ("weight", "ignore_index", "label_smoothing", "reduction")}
        return type(self)(float(self.theta[0]), num_classes=num_classes, **options)

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``y log((1 - eta) h + eta (1 - h) / (n - 1))``.

        Raises:
            ValueError: the number of classes was not given.
        """
        if self.num_classes is None:
            raise ValueError(f"f(y, h) of {self.name} depends on the number of classes: give num_classes.")
        return labelled(y, self._log_noisy(log_h, self.num_classes))

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """``-f(y, h)`` for the number of classes that the logits have."""
        return labelled(y, -self._log_noisy(logits.log_softmax(dim=1), logits.shape[1]))

    indexed = ClassificationLoss.indexed

    def _log_noisy(self, log_h: Tensor, n: int) -> Tensor:
        eta = self.theta[0].to(log_h.dtype)
        limits = torch.finfo(log_h.dtype)
        # Finite, for the gradient of logaddexp at two infinities is no number
        right = torch.log1p(-eta) + log_h.clamp(min=limits.min / 4)
        wrong = torch.log(eta / (n - 1)) + (-torch.expm1(log_h)).clamp(min=limits.tiny).log()
        return torch.logaddexp(right, wrong)
