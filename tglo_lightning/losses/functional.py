r"""The TaylorGLO polynomial as pure functions of its parameters.

A loss of this package is :math:`L = -\sum_k f(y_k, h_k)` with :math:`h = \mathrm{softmax}(z)`. For TaylorGLO of order
``K``

.. math:: f(y, h) = \sum_{a \ge 0,\, b \ge 1,\, a + b \le K} \theta_{ab}\, (y - \theta_0)^a (h - \theta_1)^b .

``theta`` holds the two centres first, then the coefficients, ``a`` outermost: ``(t0, t1, t_01, t_02, ..., t_11, ...)``.

Source: Gonzalez and Miikkulainen, *Optimizing Loss Functions Through Multivariate Taylor Polynomial
Parameterization* (arXiv 2002.00059). Factorials are absorbed into the coefficients, the factor ``1/n`` is left out.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from tglo_lightning.arguments import integer, tensor_of

CENTRES = 2


def num_parameters(order: int) -> int:
    """Length of ``theta`` at an ``order`` of at least 2: two centres and ``order * (order + 1) / 2`` coefficients.

    >>> [num_parameters(order) for order in (2, 3, 4)]
    [5, 8, 12]
    """
    order = integer("order", order, 2)
    return CENTRES + order * (order + 1) // 2


def order_of(theta: Tensor | Sequence[float]) -> int:
    """Order of the polynomial whose parameters are ``theta`` of shape ``(..., P)``.

    Raises:
        ValueError: no order has ``P`` parameters.

    >>> order_of([0.0] * 8)
    3
    """
    length = theta.shape[-1] if isinstance(theta, Tensor) and theta.dim() else len(theta)
    order = (math.isqrt(8 * max(length - CENTRES, 0) + 1) - 1) // 2
    if order < 2 or num_parameters(order) != length:
        raise ValueError(
            f"`theta` must have 5, 8, 12, 17, ... values (order 2, 3, 4, 5, ...) in its last dimension, got {length}."
        )
    return order


def terms(order: int) -> tuple[tuple[int, int], ...]:
    """Exponents ``(a, b)`` of ``(y - t0)^a (h - t1)^b``, in the order of ``theta[2:]``.

    >>> terms(3)
    ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1))
    """
    integer("order", order, 2)
    return tuple((a, b) for a in range(order) for b in range(1, order - a + 1))


def theta_tensor(theta: Tensor | Sequence[float], order: int | None = None) -> Tensor:
    """``theta`` as a floating tensor of shape ``(..., P)``, checked; sequences become float64.

    Raises:
        TypeError: ``theta`` is not made of numbers.
        ValueError: wrong length for ``order`` (for any order, where ``None``), or a value that is not finite.
    """
    tensor = theta if isinstance(theta, Tensor) else tensor_of("theta", theta, torch.float64)
    if tensor.is_complex():
        raise TypeError(f"`theta` must be real numbers, got a tensor of {tensor.dtype}.")
    tensor = tensor if tensor.is_floating_point() else tensor.to(torch.float64)
    if tensor.dim() == 0:
        raise ValueError(f"`theta` must be a sequence of numbers, got the single number {tensor.item()!r}.")
    if order is None:
        order_of(tensor)
    elif tensor.shape[-1] != num_parameters(order):
        raise ValueError(
            f"`theta` must have {num_parameters(order)} values at order {order} (2 centres and "
            f"{num_parameters(order) - CENTRES} coefficients), got {tensor.shape[-1]}."
        )
    if inspectable(tensor) and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"`theta` must be finite, got {tensor.tolist()}.")
    return tensor


def wrapped(tensor: Tensor) -> bool:
    """Whether a transform of :mod:`torch.func` maps over ``tensor`` or differentiates with respect to it."""
    if torch.compiler.is_compiling():
        return False
    try:
        tensor.data_ptr()  # such a tensor has no memory of its own
    except RuntimeError:
        return True
    return False


def inspectable(tensor: Tensor) -> bool:
    """Whether looking at its values is possible and free: on the CPU, outside compilation, torch.func and modes such as
    FakeTensorMode.
    """
    if not tensor.is_cpu or torch.compiler.is_compiling() or wrapped(tensor):
        return False
    return _get_current_dispatch_mode() is None and not isinstance(tensor, FakeTensor)


def horner(coefficients: Sequence[Any], x: Any) -> Any:
    """The polynomial in ``x`` with these coefficients, lowest power first; tensors or numbers, as ``x``."""
    *lower, result = coefficients
    for coefficient in reversed(lower):
        result = result * x + coefficient
    return result


def expanded(coefficients: Iterable[Any], centre: Any) -> list[Any]:
    """Coefficients of the powers of ``x``, given those of ``x - centre``, by repeated synthetic division."""
    result = list(coefficients)
    for done in range(len(result) - 1):
        for m in range(len(result) - 2, done - 1, -1):
            result[m] = result[m] - centre * result[m + 1]
    return result


def by_power(values: Sequence[Any]) -> list[list[Any]]:
    """``theta_ab`` for ``a = 0 .. K - b`` of each ``b = 1 .. K``, out of the values of ``theta`` one by one."""
    order = order_of(values)
    table = dict(zip(terms(order), values[CENTRES:], strict=True))
    return [[table[a, b] for a in range(order - b + 1)] for b in range(1, order + 1)]


def at_label(values: Sequence[Any], y: Any) -> list[Any]:
    """Coefficients of ``f(y, h)`` at a label, for ``(h - t1)^b`` with ``b = 1 .. K``; numbers, or tensors that
    broadcast against ``y``.
    """
    dy = y - values[0]
    return [horner(row, dy) for row in by_power(values)]


def taylor_f(theta: Tensor, y: Tensor | float, h: Tensor) -> Tensor:
    """``f(y, h)`` of TaylorGLO, elementwise.

    ``theta`` has the shape ``(..., P)``, labels ``y`` and predictions ``h`` the shape ``(..., n)``; leading dimensions
    broadcast, and a label may be one number.
    """
    values = theta.unsqueeze(-1).unbind(-2)
    result: Tensor = horner([0.0, *at_label(values, y)], h - values[1])
    return result


def taylor_gamma(theta: Tensor, y: Tensor | float, h: Tensor) -> Tensor:
    """``gamma(y, h) = df/dh`` of TaylorGLO, elementwise; shapes as in :func:`taylor_f`."""
    values = theta.unsqueeze(-1).unbind(-2)
    slopes = [b * q for b, q in enumerate(at_label(values, y), start=1)]
    result: Tensor = horner(slopes, h - values[1])
    return result


def formula(theta: Tensor | Sequence[float], digits: int = 4) -> str:
    """``f(y, h)`` in plain text, terms with a zero coefficient left out.

    >>> formula([0.0, 0.5, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0])
    '1 (h - 0.5) + 2 y (h - 0.5)'
    """
    values = theta.tolist() if isinstance(theta, Tensor) else [float(value) for value in theta]

    def factor(name: str, centre: float, exponent: int) -> str:
        if exponent == 0:
            return ""
        base = name if centre == 0 else f"({name} {'-' if centre > 0 else '+'} {abs(centre):.{digits}g})"
        return f" {base}" if exponent == 1 else f" {base}^{exponent}"

    text = ""
    for (a, b), value in zip(terms(order_of(values)), values[CENTRES:], strict=True):
        if value == 0:
            continue
        sign = ("-" if value < 0 else "") if not text else (" - " if value < 0 else " + ")
        text += f"{sign}{abs(value):.{digits}g}{factor('y', values[0], a)}{factor('h', values[1], b)}"
    return text or "0"
