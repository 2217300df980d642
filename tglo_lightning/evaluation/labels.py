"""How frequent each class is among the training labels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tglo_lightning.losses import class_priors

__all__ = ["label_frequencies"]

# Enough to tell unbalanced classes, and never more than a part of a large epoch
MOST_LABELS = 8192
MOST_BATCHES = 100


def label_frequencies(loader: Iterable[Any], batch: Any, call: Any) -> tuple[float, ...] | None:
    """Count the labels of the first batches of an epoch.

    Args:
        loader: yields batches.
        batch: its first batch, as the module saw it.
        call: positional and keyword arguments that the loss was called with for that batch, logits and target.

    Returns:
        Frequency of each class; ``None`` if the labels are not class indices, one a sample, that lie in the batch as
        they reach the loss.
    """
    given = [] if call is None else [*call[0], *call[1].values()]
    if len(given) != 2 or not all(isinstance(each, Tensor) for each in given):
        return None
    logits, target = given
    if logits.dim() != 2 or target.dim() != 1 or target.is_floating_point():
        return None
    leaves = tree_leaves(batch)
    place = next((i for i, leaf in enumerate(leaves) if _same(leaf, target)), None)
    if place is None:
        return None
    labels: list[Tensor] = []
    for each in islice(loader, MOST_BATCHES):
        found = tree_leaves(each)
        if sum(map(len, labels)) >= MOST_LABELS:
            break
        if len(found) != len(leaves) or not isinstance(found[place], Tensor):
            return None
        labels.append(found[place].detach().flatten().cpu())
    if not labels or int(torch.cat(labels).max()) >= logits.shape[1]:
        return None
    return tuple(class_priors(torch.cat(labels).long(), logits.shape[1]).tolist())


def _same(leaf: Any, target: Tensor) -> bool:
    if not isinstance(leaf, Tensor) or leaf.is_floating_point() or leaf.numel() != target.numel():
        return False
    return bool(torch.equal(leaf.flatten().cpu().long(), target.flatten().cpu().long()))
