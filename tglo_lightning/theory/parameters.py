"""Parameters of a TaylorGLO loss in other coordinates: powers of ``(h, y)``, smoothed labels, the minimal set.

Source: Gonzalez and Miikkulainen, arXiv 2002.00059 (the parameterisation) and arXiv 2010.00788 (the learning rule).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tglo_lightning.arguments import integer, number
from tglo_lightning.losses.functional import by_power, expanded, horner, order_of, terms
from tglo_lightning.theory.subject import LossLike, theta_of


def expand_gamma(theta: Tensor) -> dict[tuple[int, int], Tensor]:
    """``c_ij`` of ``gamma = sum_ij c_ij y^i h^j``, ``i + j < K``, each of shape ``(...)``."""
    values = theta.unbind(-1)
    by_label = [expanded(row, values[0]) for row in by_power(values)]
    c: dict[tuple[int, int], Tensor] = {}
    for i in range(len(by_label)):
        slopes = [b * column[i] for b, column in enumerate(by_label, start=1) if i < len(column)]
        c |= {(i, j): value for j, value in enumerate(expanded(slopes, values[1]))}
    return c


def coefficients(theta: LossLike) -> dict[str, Tensor]:
    r"""Coefficients of ``gamma = df/dh`` as a polynomial in the prediction ``h`` and the label ``y``.

    .. math:: \gamma = c_1 + c_h h + c_{hh} h^2 + c_{hy} h y + c_y y + c_{yy} y^2 \quad (K = 3)

    Any order: the coefficient of ``h^j y^i`` is called ``"c_"`` followed by ``j`` times ``h`` and ``i`` times ``y``,
    and ``"c_1"`` is the constant; every value has shape ``(...)``. Source: arXiv 2010.00788, section 3.

    Raises:
        TypeError, ValueError: not a TaylorGLO loss, or no order has ``P`` parameters.

    >>> {name: float(value) for name, value in coefficients([0, 0, 0, 1, 0, 2, 0, 0]).items() if value}
    {'c_h': 2.0, 'c_y': 2.0}
    """
    c = expand_gamma(theta_of(theta))
    return dict(sorted(("c_" + ("h" * j + "y" * i or "1"), value) for (i, j), value in c.items()))


def label_smoothed(theta: LossLike, alpha: float | Tensor, num_classes: int) -> Tensor:
    r"""The ``theta`` that does with one-hot labels what ``theta`` does with smoothed ones.

    Smoothed labels are ``y' = (1 - alpha) y + alpha / n``, so ``y' - t0 = (1 - alpha) (y - t0')`` with

    .. math:: t_0' = \frac{t_0 - \alpha / n}{1 - \alpha}, \qquad \theta'_{ab} = (1 - \alpha)^a \, \theta_{ab} .

    The loss itself, not only its gradient, is the same. A ``label_smoothing`` of the loss given is not looked at.

    Args:
        theta: parameters of shape ``(..., P)``, or a TaylorGLO loss.
        alpha: smoothing in [0, 1), a number or a tensor that broadcasts against ``(...)``.
        num_classes: ``n``.

    Raises:
        ValueError: ``alpha`` outside [0, 1), ``num_classes < 2``, or a wrong number of parameters.
    """
    theta = theta_of(theta)
    num_classes = integer("num_classes", num_classes, 2)
    if not isinstance(alpha, Tensor):
        alpha = number("alpha", alpha, least=0, below=1)
    keep = 1 - torch.as_tensor(alpha, dtype=theta.dtype, device=theta.device)
    label, prediction, *values = theta.unbind(-1)
    values = [value * keep**a for value, (a, _) in zip(values, terms(order_of(theta)), strict=True)]
    return torch.stack(torch.broadcast_tensors((label - alpha / num_classes) / keep, prediction, *values), dim=-1)


def to_minimal(theta: LossLike) -> Tensor:
    r"""The ``2 (K - 1)`` numbers through which hard labels feel a TaylorGLO loss.

    A term of ``gamma`` that is the same for every class cancels in the logit velocity, and a hard label is 0 or 1.
    There remain two polynomials in ``h``: ``gamma(h, 0)`` without its constant, and ``gamma(h, 1) - gamma(h, 0)``. At
    order 3

    .. math:: c = (c_h,\; c_{hh},\; c_{hy},\; c_y + c_{yy}),

    at order 4 ``(c_h, c_hh, c_hhh, c_hhy, c_hy + c_hyy, c_y + c_yy + c_yyy)``, and so on, of shape
    ``(..., 2 (K - 1))``. For smoothed labels smooth first: ``to_minimal(label_smoothed(theta, alpha, num_classes))``.

    >>> to_minimal([0.0, 0.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0]).tolist()
    [2.0, 3.0, 2.0, 2.0]
    """
    theta = theta_of(theta)
    order = order_of(theta)
    c = expand_gamma(theta)
    drift = [c[0, j] for j in range(1, order)]
    pull = [sum((c[i, j] for i in range(2, order - j)), start=c[1, j]) for j in range(order - 2, -1, -1)]
    return torch.stack(drift + pull, dim=-1)


def label_polynomials(theta: Tensor, on: float, off: float) -> tuple[Tensor, Tensor]:
    """``gamma`` at the labels of the true and of a wrong class, as coefficients of ``1, h, h^2, ...``, ``(..., K)``.

    The part of the constant that both share (``c_1``) is left out: it cancels wherever this is used.
    """
    order = order_of(theta)
    c = expand_gamma(theta)
    c[0, 0] = torch.zeros_like(c[0, 0])
    columns = [[c[i, j] for i in range(order - j)] for j in range(order)]
    true, other = (torch.stack([horner(column, y) for column in columns], dim=-1) for y in (on, off))
    return true, other
