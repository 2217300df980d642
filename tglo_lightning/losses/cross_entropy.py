"""Cross-entropy as a family without parameters."""

import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.classification import labelled
from tglo_lightning.losses.functional import wrapped


class CrossEntropyLoss(LinearLoss):
    """Cross-entropy, ``f(y, h) = y log h``.

    It computes what :func:`torch.nn.functional.cross_entropy` computes, and besides knows its ``f`` and ``gamma``. With
    label smoothing a masked class (a logit of minus infinity) drops out of the sum, where torch's loss is infinite.
    Arguments and shapes: :class:`~tglo_lightning.losses.ClassificationLoss`.
    """

    family = "cross_entropy"
    text = "y log(h)"
    python = "y * log_h"

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``log h``."""
        return log_h

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``y / h``, zero where the label is zero."""
        return labelled(y, 1 / h)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)``, by torch's own kernel where it can be used."""
        if self.smooths or wrapped(target):  # torch's kernel looks at the targets
            return super().indexed(logits, target)
        return F.cross_entropy(logits, target, reduction="none")
