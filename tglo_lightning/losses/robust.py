"""A loss for noisy labels that needs no search."""

from typing import Any

from tglo_lightning.losses.priors import prior
from tglo_lightning.losses.shape import from_minimal, from_shape
from tglo_lightning.losses.taylorglo import TaylorGLOLoss


def robust(num_classes: int, **options: Any) -> TaylorGLOLoss:
    """A loss for noisy labels, found on many tasks at once, for networks that train long enough to memorise.

    Never use it without a comparison on validation data (``benchmarks/worth``): where labels are clean, or training
    ends before wrong labels are memorised, it costs accuracy, and it ignores rare classes.

    It is the TaylorGLO loss of order 3 with the shape ``t`` of :func:`~tglo_lightning.losses.priors.prior` and mean
    pull 1, so it takes the learning rate of cross-entropy.

    Args:
        num_classes: ``n``.
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    >>> robust(10).theta.numpy().round(2).tolist()
    [0.0, 0.0, 0.0, -2.87, 2.64, 3.1, -1.2, 0.0]
    """
    return TaylorGLOLoss(from_minimal(from_shape(1.0, list(prior().t), num_classes)), **options)
