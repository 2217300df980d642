"""Whether a network can start to learn from a loss: the null epoch, where every output is ``1/n``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tglo_lightning.theory.parameters import expand_gamma, label_polynomials
from tglo_lightning.theory.subject import LossLike, Subject, subject_for, value_of


class Trainability(NamedTuple):
    """What the null epoch says of a loss, see :func:`trainability`; for ``theta`` of shape ``(..., P)`` tensors of
    shape ``(...)``, for one loss tensors of no dimension and ``bool``.

    Attributes:
        A: ``gamma`` of a wrong class.
        B: ``gamma`` of the true class less that of a wrong one.
        S: slope in ``h`` of ``gamma`` averaged over the labels.
        published: ``B >= (n - 2) A``, the invariant of the method's published implementation.
        trainable: ``B > 0``. Necessary.
        stable: ``B > 0`` and ``S <= 0``. A strong prior.
    """

    A: Tensor
    B: Tensor
    S: Tensor
    published: Tensor | bool
    trainable: Tensor | bool
    stable: Tensor | bool


def trainability(loss: LossLike, num_classes: int) -> Trainability:
    r"""Can a network that starts undecided (``h_k = 1/n`` for every class) learn from this loss?

    .. math:: A = \gamma(\tfrac1n, 0), \quad B = \gamma(\tfrac1n, 1) - \gamma(\tfrac1n, 0), \quad
        S = \frac{d}{dh} \left[ \frac{\gamma(h, 1) + (n - 1)\,\gamma(h, 0)}{n} \right]_{h = 1/n}

    The first step moves the true class's logit by ``B (n-1)/n^2``, so with ``B <= 0`` the true class is pushed down
    (``trainable``, necessary). With ``S > 0`` a class-independent drift of the output feeds on itself and the
    network collapses to one class before it separates them (``stable`` forbids that). ``published`` is the invariant
    of the published implementation, which treats the outputs as independent (arXiv 2010.00788). Labels are smoothed
    first if the loss smooths them.

    ``stable`` can reject too much: the drift needs a mean that the last layer's inputs share, as raw pixels have. With
    standardised inputs to a small network, or few classes, ``trainable`` is the better filter
    (``benchmarks/trainability.py`` measures both).

    >>> verdict = trainability("cross_entropy", 10)
    >>> float(verdict.B), float(verdict.S), verdict.trainable, verdict.stable
    (10.0, -10.0, True, True)
    """
    seen = subject_for(loss, num_classes)
    a, b, s = _by_autograd(seen) if seen.theta is None else _by_formula(seen, seen.theta)
    return Trainability(a, b, s, *map(value_of, (b >= (seen.n - 2) * a, b > 0, (b > 0) & (s <= 0))))


def _by_formula(seen: Subject, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    true, other = label_polynomials(theta, *seen.labels)
    n = seen.n
    degrees = torch.arange(true.shape[-1], dtype=true.dtype, device=true.device)
    powers = (1.0 / n) ** degrees
    slopes = degrees * n * powers
    a = expand_gamma(theta)[0, 0] + (other * powers).sum(-1)
    b = ((true - other) * powers).sum(-1)
    s = ((true + (n - 1) * other) * slopes).sum(-1) / n
    return a, b, s


def _by_autograd(seen: Subject) -> tuple[Tensor, Tensor, Tensor]:
    n, (on, off) = seen.n, (torch.tensor(y, dtype=torch.float64) for y in seen.labels)
    h = torch.tensor(1.0 / n, dtype=torch.float64)
    true, other = seen.gamma(on, h), seen.gamma(off, h)
    s = torch.func.grad(lambda p: (seen.gamma(on, p) + (n - 1) * seen.gamma(off, p)) / n)(h)
    return other, true - other, s
