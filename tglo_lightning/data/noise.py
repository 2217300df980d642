"""Label noise."""

import torch
from torch import Tensor

from tglo_lightning.arguments import integer, number


def flip_labels(labels: Tensor, num_classes: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Symmetric label noise: exactly `round(fraction * N)` labels become a wrong class, drawn uniformly.

    The class is drawn from the other `num_classes - 1` classes, so `fraction` is the share of labels that are wrong.
    (Some papers draw from all classes instead; there a noise of `r` leaves `r (n - 1) / n` of the labels wrong.)

    Args:
        labels: class indices, shape (N,), in [0, num_classes); they stay as they are.
        num_classes: number of classes, at least 2.
        fraction: share of labels to make wrong, in [0, 1].
        generator: where the random numbers come from; the global generator is left alone.

    Raises:
        TypeError, ValueError: `fraction` or `num_classes` out of range, or `labels` not of shape (N,).
    """
    fraction = number("fraction", fraction, least=0, most=1)
    num_classes = integer("num_classes", num_classes, 2)
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (N,), got {tuple(labels.shape)}")
    count = round(fraction * len(labels))
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    shift = torch.randint(1, num_classes, (count,), generator=generator)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + shift) % num_classes
    return noisy
