"""Frequencies of the classes among the training labels, and the base of the losses that need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.arguments import integer, tensor_of
from tglo_lightning.losses.classification import ClassificationLoss
from tglo_lightning.wording import counted

__all__ = ["PriorLoss", "class_priors"]


def class_priors(labels: Tensor | Sequence[int], num_classes: int) -> Tensor:
    """Frequencies of the classes among training labels.

    Args:
        labels: class indices, of any shape; negative ones (ignored samples) are left out.
        num_classes: ``n``.

    Returns:
        float64 tensor of shape ``(n,)``, positive, with sum 1. A class without a sample is counted as if it had one.

    >>> class_priors([0, 0, 0, 1], 2).tolist()
    [0.75, 0.25]
    """
    flat = tensor_of("labels", labels).flatten()
    counts = torch.bincount(flat[flat >= 0], minlength=integer("num_classes", num_classes, 2))
    if len(counts) > num_classes:
        raise ValueError(f"`labels` must lie in [0, {num_classes - 1}], got {len(counts) - 1}.")
    counts = counts.clamp(min=1).double()
    return counts / counts.sum()


class PriorLoss(ClassificationLoss):
    """Base of the losses that know how frequent each class is in training.

    Args:
        theta: parameters, one for each axis.
        priors: frequencies or numbers of samples of the classes, positive, shape ``(n,)``; see :func:`class_priors`.
            They become the buffer ``priors`` with sum 1. ``None`` makes a loss that can be looked at, and not called.
        options: those of :class:`ClassificationLoss`.
    """

    family = ""
    priors: Tensor | None

    def __init__(
        self, theta: Sequence[float], *, priors: Tensor | Sequence[float] | None = None, **options: Any
    ) -> None:
        super().__init__(theta, **options)
        if priors is not None:
            priors = tensor_of("priors", priors, torch.float64).detach()
            if priors.dim() != 1 or not bool((priors > 0).all()) or not bool(priors.isfinite().all()):
                raise ValueError(f"`priors` must be positive numbers, one a class, got {priors.tolist()}.")
            priors = priors / priors.sum()
        self.register_buffer("priors", priors)

    def log_priors(self, like: Tensor) -> Tensor:
        """Logarithms of the priors, shape ``(n,)``, in the type of ``like``."""
        assert self.priors is not None
        return self.priors.log().to(like)

    def _check(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> bool:
        if self.priors is None:
            raise ValueError(
                f"{self.name} needs `priors`, the frequencies of the classes: class_priors(training_labels, n)."
            )
        hard = super()._check(logits, target, weight)
        n = logits.shape[min(logits.dim() - 1, 1)]
        if len(self.priors) != n:
            raise ValueError(
                f"{self.name}: `priors` has {counted(len(self.priors), 'value')}, the logits have "
                f"{counted(n, 'class')}."
            )
        return hard
