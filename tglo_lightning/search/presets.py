"""Criteria that are worth trying on any task, before a search or in place of one."""

from __future__ import annotations

from collections.abc import Sequence

from tglo_lightning.losses import robust
from tglo_lightning.search.criterion import Criterion, LossSpec

__all__ = ["RATES", "is_unbalanced", "presets"]

RATES = (1.0, 0.3, 3.0, 0.1)
"""Factors on the module's own learning rate."""

# Above this ratio of the most to the least frequent class, losses for unbalanced classes are tried
UNBALANCED = 3.0
SCE = LossSpec("sce", (0.1, 1.0))
SMOOTHING = LossSpec("smoothing", (0.1,))


def is_unbalanced(priors: Sequence[float] | None) -> bool:
    """Whether the most frequent class has more than 3 times the samples of the least frequent one."""
    return priors is not None and max(priors) > UNBALANCED * min(priors)


def presets(num_classes: int, priors: Sequence[float] | None = None, places: int = 1) -> list[Criterion]:
    """Return ten criteria: the module's own loss, label smoothing, and two robust losses at four learning rates each.

    The robust losses are SCE as published and :func:`~tglo_lightning.losses.robust`. For unbalanced classes logit
    adjustment and class weights take the place of the lowest learning rate.

    Args:
        num_classes: classes of the task.
        priors: frequencies of the classes among the training labels, if they are known.
        places: losses in the module, each replaced by the same one.

    >>> [criterion.formula for criterion in presets(10)][:2]
    ['', 'y log(h), labels smoothed by 0.1']
    >>> len(presets(10)), len(presets(2, priors=[0.9, 0.1]))
    (10, 10)
    """
    shared = LossSpec("taylorglo", tuple(robust(num_classes).theta.tolist()))
    unbalanced = is_unbalanced(priors)
    found = [Criterion.original(), Criterion((SMOOTHING,) * places)]
    rates = RATES[:-1] if unbalanced else RATES
    found += [Criterion((spec,) * places, rate) for rate in rates for spec in (SCE, shared)]
    if unbalanced:
        assert priors is not None
        rivals = [LossSpec("logit_adjustment", (1.0, *priors)), LossSpec("class_weights", (1.0, *priors))]
        found += [Criterion((spec,) * places) for spec in rivals]
    return found
