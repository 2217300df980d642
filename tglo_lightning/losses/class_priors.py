"""Frequencies of the classes among the training labels, and the base of the losses that need them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from tglo_lightning.arguments import integer, tensor_of
from tglo_lightning.losses.classification import ClassificationLoss
from tglo_lightning.losses.functional import inspectable
from tglo_lightning.wording import counted


def class_priors(labels: Tensor | Sequence[int], num_classes: int) -> Tensor:
    """Frequencies of the classes among training labels, float64 of shape ``(num_classes,)``, positive, with sum 1.

    ``labels`` are class indices of any shape; negative ones (ignored samples) are left out. A class without a sample is
    counted as if it had one.

    >>> class_priors([0, 0, 0, 1], 2).tolist()
    [0.75, 0.25]
    """
    flat = tensor_of("labels", labels).flatten()
    counts = torch.bincount(flat[flat >= 0], minlength=integer("num_classes", num_classes, 2))
    if len(counts) > num_classes:
        raise ValueError(f"`labels` must lie in [0, {num_classes - 1}], got {len(counts) - 1}.")
    counts = counts.clamp(min=1).double()
    return counts / counts.sum()


class PriorLoss(ClassificationLoss, abstract=True):
    """Base of the losses that know how frequent each class is in training.

    The frequencies follow the parameters in ``theta``, so they travel wherever ``theta`` does.

    Args:
        theta: parameters, one for each axis.
        priors: frequencies or numbers of samples of the classes, positive, shape ``(n,)``; see :func:`class_priors`.
            ``None`` makes a loss that can be looked at, and not called.
        options: those of :class:`ClassificationLoss`.
    """

    def __init__(
        self, theta: Sequence[float], *, priors: Tensor | Sequence[float] | None = None, **options: Any
    ) -> None:
        super().__init__(theta, **options)
        if priors is not None:
            priors = tensor_of("priors", priors, torch.float64).detach()
            positive = not inspectable(priors) or bool(((priors > 0) & priors.isfinite()).all())
            if priors.dim() != 1 or not positive:
                raise ValueError(f"`priors` must be positive numbers, one a class, got {priors.tolist()}.")
            self.theta = torch.cat([self.theta, priors / priors.sum()])

    @classmethod
    def of(cls, theta: Sequence[float], **options: Any) -> Self:
        """Build the loss; what follows the parameters in ``theta`` are the priors."""
        values = theta.tolist() if isinstance(theta, Tensor) else list(theta)
        if len(values) > len(cls.axes):
            options = {"priors": values[len(cls.axes) :], **options}
        return super().of(values[: len(cls.axes)], **options)

    @property
    def priors(self) -> Tensor | None:
        """Frequencies of the classes, float64 of shape ``(n,)`` with sum 1."""
        count = len(self.axes)
        return self.theta[count:] if len(self.theta) > count else None

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

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}theta")
        if saved is not None and self.priors is None:  # a loss without priors takes those that were saved
            self.theta = torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args)
