"""Where a loss pulls a sample to when all wrong classes are equally likely: ``h_T = 1 - eps``, the others ``eps / (n
- 1)``.

There ``attraction = eps (1 - eps) D(eps)`` with ``D(eps) = gamma_T - gamma_notT``. Source: the attraction analysis of
Gonzalez and Miikkulainen (arXiv 2010.00788), carried through the softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tglo_lightning.arguments import integer
from tglo_lightning.losses.functional import horner
from tglo_lightning.theory.parameters import label_polynomials
from tglo_lightning.theory.subject import LossLike, Subject, floating, subject_for, theta_of

Array = NDArray[np.floating]


class ZeroError(NamedTuple):
    """What happens to a perfectly memorised label; see :func:`zero_error`.

    Attributes:
        value: ``D(0)``, shape ``(...)``; may be infinite.
        verdict: ``"attracts"``, ``"repels"`` or ``"neutral"``; a nested list of those for several losses.
    """

    value: Tensor
    verdict: str | list


class Equilibrium(NamedTuple):
    """Where a loss lets a sample settle.

    Attributes:
        eps: ``1 - h_T`` there.
        confidence: ``h_T``, the confidence the loss drives to.
        label_smoothing: the smoothing with which cross-entropy settles there; above 1 if another class is likelier.
    """

    eps: float
    confidence: float
    label_smoothing: float


def implied(eps: float, num_classes: int) -> Equilibrium:
    """Confidence and label smoothing that an equilibrium ``eps`` of :func:`equilibria` stands for.

    >>> round(implied(0.09, 10).label_smoothing, 9)
    0.1
    """
    num_classes = integer("num_classes", num_classes, 2)
    return Equilibrium(eps, 1 - eps, eps * num_classes / (num_classes - 1))


def attraction_coefficients(loss: LossLike, num_classes: int) -> Tensor:
    r"""``d_0 .. d_(K-1)`` of ``D(eps) = sum_i d_i eps^i`` for a TaylorGLO loss. At order 3

    .. math:: d_0 = c_h + c_{hh} + c_{hy} + c_y + c_{yy}, \quad
        d_1 = -c_h \tfrac{n}{n-1} - 2 c_{hh} - c_{hy}, \quad d_2 = c_{hh} \left( 1 - \tfrac{1}{(n-1)^2} \right)

    Returns:
        Tensor of shape ``(..., K)``, for ``theta`` of shape ``(..., P)``.

    Raises:
        TypeError: the loss has no ``theta``.
    """
    seen = subject_for(loss, num_classes)
    return _polynomial(seen, theta_of(loss))


def _polynomial(seen: Subject, theta: Tensor) -> Tensor:
    true, other = label_polynomials(theta, *seen.labels)
    degrees = range(true.shape[-1])
    rows = []
    for i in degrees:
        # (1 - eps)^j = sum_i comb(j, i) (-eps)^i
        through_true = sum(
            (true[..., j] * (comb(j, i) * (-1) ** i) for j in degrees if j > i), (-1) ** i * true[..., i]
        )
        rows.append(through_true - other[..., i] / (seen.n - 1) ** i)
    return torch.stack(rows, dim=-1)


def attraction_curve(loss: LossLike, num_classes: int, eps: Tensor | Sequence[float] | float) -> Tensor:
    """``D(eps) = gamma_T - gamma_notT`` at ``h_T = 1 - eps``, ``h_notT = eps / (n - 1)``.

    Positive where the sample is pulled towards zero training error. Its attraction is ``eps (1 - eps) D(eps)``. The
    limits at 0 and 1 are infinite for some losses: Baikal's ``D`` is ``1/(1-eps) + 1/(1-eps)^2 - (n-1)/eps``. Labels
    are smoothed first if the loss smooths them.

    Args:
        loss: a loss, its name, or ``theta`` of shape ``(..., P)``.
        eps: distance from zero training error, in [0, 1], of any shape.

    Returns:
        Tensor of the shape of ``eps``; for ``theta`` with leading dimensions ``(...)``, of shape ``(..., *eps.shape)``.
    """
    seen = subject_for(loss, num_classes)
    if seen.theta is None:
        return _difference(seen, floating(eps=eps)[0])
    points, theta = floating(eps=eps, theta=seen.theta)
    d = _polynomial(seen, theta)
    result = horner([column[..., None] for column in d.unbind(-1)], points.reshape(-1))
    return result.reshape((*d.shape[:-1], *points.shape))


def _difference(seen: Subject, eps: Tensor) -> Tensor:
    on, off = seen.labels
    return _limit(seen, on, 1 - eps) - _limit(seen, off, eps / (seen.n - 1))


def _limit(seen: Subject, y: float, h: Tensor) -> Tensor:
    """``gamma(y, h)``, also where ``h = 0`` makes 0/0 of it: the limit there, which may be infinite."""
    label = torch.full_like(h, y)
    value = seen.gamma(label, h)
    small = torch.finfo(h.dtype).tiny ** 0.25
    near, nearer = (seen.gamma(label, h.clamp(min=each)) for each in (small, small**2))
    # A logarithm doubles from the one to the other, a power grows by far more, a finite limit stands still
    diverges = (nearer - near).abs() > 0.1 * near.abs()
    near = torch.where(diverges, nearer.sign() * torch.inf, near)
    return torch.where(value.isnan(), near, value)


def zero_error(loss: LossLike, num_classes: int) -> ZeroError:
    """``D(0)``: does the loss pull perfectly memorised labels in, or push them away?

    Positive attracts (cross-entropy: 1), negative repels, so the loss regularises (Baikal: minus infinity).

    >>> zero_error("baikal", 10).verdict
    'repels'
    """
    value = attraction_curve(loss, num_classes, 0.0)
    return ZeroError(value, _verdicts(value.sign().tolist()))


def _verdicts(sign: float | list) -> str | list:
    if isinstance(sign, list):
        return [_verdicts(each) for each in sign]
    return "attracts" if sign > 0 else "repels" if sign < 0 else "neutral"


def equilibria(loss: LossLike, num_classes: int) -> list[float]:
    """Stable equilibria ``eps*`` of one loss: where ``D`` crosses zero upwards inside (0, 1).

    Below ``eps*`` the sample is pushed away from zero training error, above it is pulled towards it: the loss drives
    confidence to ``1 - eps*``. Where ``D`` only touches zero nothing settles. Cross-entropy with label smoothing
    ``alpha`` settles at ``alpha (n - 1)/n``; without, it has no equilibrium. :func:`implied` tells what one stands for.

    Returns:
        Sorted floats; empty if nothing settles.

    Raises:
        ValueError: more than one loss, as of a ``theta`` of shape ``(..., P)``.
    """
    seen = subject_for(loss, num_classes)
    if seen.theta is None:

        def curve(eps: Array) -> Array:
            return _difference(seen, torch.as_tensor(eps, dtype=torch.float64)).detach().cpu().numpy()

        crossings = _crossings(curve, _DENSE)
    elif seen.theta.dim() != 1:
        raise ValueError(f"`equilibria` takes one loss, got `theta` of shape {tuple(seen.theta.shape)}.")
    else:
        crossings = _polynomial_crossings(_polynomial(seen, seen.theta.detach().cpu().double()).numpy())
    return [eps for eps, upwards in crossings if upwards]


# Both ends finely: with little label smoothing the equilibrium is close to 0, with few classes Baikal's close to 1.
_LOGITS = np.linspace(-30.0, 30.0, 3001)
_DENSE = np.unique(np.concatenate([1 / (1 + np.exp(-_LOGITS)), np.linspace(0.001, 0.999, 999)]))


def _crossings(function: Callable[[Array], Array], grid: Array, zero: float = 0.0) -> list[tuple[float, bool]]:
    """Sign changes of ``function`` on a grid, and whether each goes up; what is within ``zero`` of 0 has no sign."""
    # A second to import, and a search needs none of it
    from scipy.optimize import brentq

    values = function(grid)
    signed = np.abs(values) > zero
    grid, values = grid[signed], values[signed]
    found = []
    for i in np.flatnonzero((values[:-1] < 0) != (values[1:] < 0)):
        root = brentq(function, grid[i], grid[i + 1], xtol=1e-15, rtol=4 * np.finfo(float).eps)
        found.append((float(root), bool(values[i] < 0)))
    return found


def _polynomial_crossings(d: Array) -> list[tuple[float, bool]]:
    """Sign changes in (0, 1) of ``sum_i d_i x^i``: between two turning points a polynomial has at most one.

    Unlike the eigenvalues of a companion matrix this minds neither a leading coefficient near zero nor a double root.
    """
    if len(d) < 2:
        return []
    turning = [root for root, _ in _polynomial_crossings(d[1:] * np.arange(1, len(d)))]
    zero = 16 * np.finfo(float).eps * np.abs(d).sum()
    return _crossings(lambda x: np.polynomial.polynomial.polyval(x, d), np.array([0.0, *turning, 1.0]), zero)
