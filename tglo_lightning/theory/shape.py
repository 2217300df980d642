"""Pull and shape of any separable loss; :mod:`tglo_lightning.losses.shape` has the algebra of TaylorGLO losses."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from tglo_lightning.theory.attraction_law import attraction_curve
from tglo_lightning.theory.null_epoch import trainability
from tglo_lightning.theory.subject import LossLike


class Pull(NamedTuple):
    """How a loss pulls compared with cross-entropy; see :func:`pull_of`.

    Attributes:
        mean: mean of the pull over outputs ``h`` in ``[1/n, 1]``; infinite if it grows like ``1 / eps``, as Baikal's.
        largest: largest pull there; may be infinite.
        shape: ``(D(eps_mid)/B, D(0)/B, -S/B)``; ``None`` if ``B`` is 0.
    """

    mean: float
    largest: float
    shape: tuple[float, float, float] | None


def pull_of(loss: LossLike, num_classes: int) -> Pull:
    """Pull relative to cross-entropy's, ``r(h) = h D(1 - h)``, and the shape of one loss.

    Cross-entropy pulls with 1 everywhere. A loss divided by its mean pull trains at cross-entropy's learning rate.

    >>> pull_of("mae", 10).shape
    (1.0, 1.0, 0.0)
    """
    n, told = num_classes, trainability(loss, num_classes)
    farthest = 1 - 1 / n

    def curve(eps: np.ndarray) -> np.ndarray:
        return attraction_curve(loss, n, torch.from_numpy(eps)).detach().cpu().numpy()

    # Gauss-Legendre in the eighth root of eps, for D may be infinite at 0
    points, weights = np.polynomial.legendre.leggauss(200)
    root = (1 + points) / 2
    inside = farthest * root**8
    mean = float(4 * weights * root**7 @ ((1 - inside) * curve(inside)))
    at_zero = float(curve(np.zeros(1))[0])
    near, nearer = np.array([1e-9, 1e-12]) * curve(np.array([1e-9, 1e-12]))
    if math.isinf(at_zero) and abs(nearer) > 0.9 * abs(near):  # as 1 / eps or more, which has no integral
        mean = at_zero
    grid = np.concatenate([np.linspace(0, farthest, 4001), inside])
    largest = float(np.max((1 - grid) * curve(grid)))
    middle, b = float(curve(np.array([farthest / 2]))[0]), float(told.B)
    return Pull(mean, largest, None if b == 0 else (middle / b, at_zero / b, (0.0 - float(told.S)) / b))
