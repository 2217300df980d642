r"""Shape and scale of a TaylorGLO loss: what it does, apart from how large a step it takes.

The losses are given by their minimal parameters ``c``, shape ``(..., 2 (K - 1))`` at order ``K``, in the order of
:func:`~tglo_lightning.theory.to_minimal`. The *pull* at the output ``h`` of the true class, the other classes being
equally likely, is :math:`r(h) = h\, D(1 - h)`: the logit of the true class moves by ``(1 - h) r(h)``. Cross-entropy has
``r = 1`` everywhere. ``num_classes`` is ``n``. All functions are linear algebra over the last dimension, batched over
the leading ones and differentiable. Derived for this package; order 3 is worked out in ``docs/theory.md``.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tglo_lightning.arguments import integer, tensor_of
from tglo_lightning.losses.functional import inspectable, terms

if TYPE_CHECKING:
    import numpy as np  # else imported where it is used: a training needs none of it
    from numpy.typing import NDArray

    Array = NDArray[np.floating]
# From here on a polynomial through the nodes oscillates between them
MANY_CLASSES = 20


def from_minimal(c: Tensor | list[float]) -> Tensor:
    r"""A ``theta`` with given minimal parameters; the inverse of :func:`~tglo_lightning.theory.to_minimal`.

    .. math:: f(y, h) = c_h \frac{h^2}{2} + c_{hh} \frac{h^3}{3} + y \left( c_{hy} \frac{h^2}{2} + c_y h \right)
        \quad (K = 3)

    The centres and every dead or doubled parameter are 0: ``theta = (0, 0, 0, c_h/2, c_hh/3, c_y, c_hy/2, 0)``. ``f``
    is linear in ``y``, so ``c`` alone also fixes what the returned loss, of shape ``(..., P)``, does with smoothed and
    soft labels.

    Raises:
        ValueError: an odd number of parameters, or none.
    """
    c, order = _minimal(c)
    dead = torch.zeros_like(c[..., 0])
    values = {(0, j + 2): c[..., j] / (j + 2) for j in range(order - 1)}
    values |= {(1, j + 1): c[..., -1 - j] / (j + 1) for j in range(order - 1)}
    return torch.stack([dead, dead, *(values.get(ab, dead) for ab in terms(order))], dim=-1)


def pull(c: Tensor | list[float], num_classes: int, h: Tensor | list[float] | float) -> Tensor:
    """Pull relative to cross-entropy's at outputs ``h`` of the true class, in [0, 1]: shape ``(..., *h.shape)``.

    >>> pull([0.0, 0.0, 0.0, 1.0], 10, [0.1, 0.5, 1.0]).tolist()  # MAE: r(h) = h
    [0.1, 0.5, 1.0]
    """
    c, order = _minimal(c)
    n = integer("num_classes", num_classes, 2)
    points = tensor_of("h", h, c.dtype, c.device)
    rows = _pull_rows(points.reshape(-1), order, n)
    return torch.stack(rows, dim=-1).matmul(c.unsqueeze(-1)).squeeze(-1).reshape((*c.shape[:-1], *points.shape))


def mean_pull(c: Tensor | list[float], num_classes: int) -> Tensor:
    r"""The scale of a loss, shape ``(...)``: the mean of the pull over ``h`` in ``[1/n, 1]``; cross-entropy has 1.

    At order 3 it is :math:`(d_0 I_0 + d_1 I_1 + d_2 I_2) / E` with :math:`E = 1 - 1/n` and
    :math:`I_k = E^{k+1}/(k+1) - E^{k+2}/(k+2)`.
    """
    c, order = _minimal(c)
    return c @ _like(c, _matrices(order, integer("num_classes", num_classes, 2))[3])


def normalized(c: Tensor | list[float], num_classes: int) -> Tensor:
    """``c`` divided by its mean pull: the same shape, trained at cross-entropy's learning rate.

    Raises:
        ValueError: a mean pull that is not positive (where its value can be looked at); such a loss does not train.
    """
    c, _ = _minimal(c)
    scale = mean_pull(c, num_classes)
    if inspectable(scale) and not bool((scale > 0).all()):
        raise ValueError(f"A loss is normalised by a positive mean pull, got {scale.tolist()} for c = {c.tolist()}.")
    return c / scale.unsqueeze(-1)


def to_shape(c: Tensor | list[float], num_classes: int) -> tuple[Tensor, Tensor]:
    r"""Scale and shape of a loss. At order 3

    .. math:: t = \left( \frac{D(\epsilon_{mid})}{B},\; \frac{D(0)}{B},\; \frac{-S}{B} \right), \qquad
        1 - \epsilon_{mid} = \tfrac12 \left( 1 + \tfrac1n \right)

    Any order ``K``: first ``D/B`` at ``K`` equally spaced outputs ``h`` from ``1/n`` to 1, but for the first, where it
    is 1; then :math:`(-1)^i S_i / (i!\, n^{i-1} B)` for ``i = 1 .. K - 2``, where ``S_i`` is the ``i``-th derivative in
    ``h`` of the label-averaged ``gamma`` at ``1/n``. That makes ``2 K - 3`` numbers: ``D`` is a polynomial of ``K``
    coefficients, and the derivatives tell the ``K - 2`` numbers that ``D`` does not. Cross-entropy has ``D/B = 1/(n
    h)`` and all the others 1.

    Returns:
        ``(scale, t)``: the mean pull, shape ``(...)``, and the shape, ``(..., 2 K - 3)``, which does not change when
        ``c`` is multiplied.

    >>> scale, t = to_shape([0.0, 0.0, 0.0, 2.0], 10)  # MAE, doubled
    >>> round(float(scale), 9), t.tolist()
    (1.1, [1.0, 1.0, 0.0])
    """
    c, order = _minimal(c)
    forms, _, factors, mean = _matrices(order, integer("num_classes", num_classes, 2))
    values = c @ _like(c, forms).T
    return c @ _like(c, mean), values[..., 1:] * _like(c, factors) / values[..., :1]


def from_shape(scale: Tensor | float, t: Tensor | list[float], num_classes: int) -> Tensor:
    """The minimal parameters with given mean pull and shape; the inverse of :func:`to_shape`.

    With two classes fewer numbers are effective (at order 3 two: ``t_1`` and ``t_3`` follow from ``t_2``). There the
    pseudo-inverse gives the smallest ``c`` among those that fit best. Where the shape itself has a mean pull of zero
    ``c`` is infinite.

    Raises:
        ValueError: an even number of values in ``t``.
    """
    t = _floating("t", t)
    if not t.dim() or t.shape[-1] % 2 == 0:
        raise ValueError(f"`t` must have 1, 3, 5, ... values (order 2, 3, 4, ...), got shape {tuple(t.shape)}.")
    _, inverse, factors, mean = _matrices((t.shape[-1] + 3) // 2, integer("num_classes", num_classes, 2))
    values = torch.cat([torch.ones_like(t[..., :1]), t / _like(t, factors)], dim=-1)
    c = values @ _like(t, inverse).T
    factor = torch.as_tensor(scale, dtype=t.dtype, device=t.device) / (c @ _like(t, mean))
    return c * factor.unsqueeze(-1)


def cross_entropy_twin(num_classes: int, order: int = 3) -> Tensor:
    """The polynomial loss that pulls most like cross-entropy, with a bounded ``gamma``.

    Below 20 classes its pull is 1 at ``order`` equally spaced outputs from ``1/n`` to 1 (with two classes, as nearly as
    it can). From 20 on such a polynomial would oscillate in between, and ``r = 1`` is fitted by least squares over
    ``[1/n, 1]``. The derivatives of :func:`to_shape` are those of cross-entropy, so ``-S/n = 1``.

    Returns ``c``, float64 of shape ``(2 (K - 1),)``; ``order`` is at least 2.
    """
    n, order = integer("num_classes", num_classes, 2), integer("order", order, 2)
    forms, inverse, *_ = _matrices(order, n)
    if n < MANY_CLASSES:
        return torch.from_numpy(inverse.sum(axis=1))
    import numpy as np

    points, weights = _quadrature(order, n)
    fitted = np.sqrt(weights)[:, None] * np.stack(_pull_rows(points, order, n), axis=-1)
    wanted = np.concatenate([np.sqrt(weights), np.ones(order - 2)])
    # The derivatives can be met exactly whatever D is, so their weight does not matter
    return torch.from_numpy(np.linalg.lstsq(np.concatenate([fitted, forms[order:]]), wanted, rcond=None)[0])


def _pull_rows(h: Any, order: int, n: int) -> list[Any]:
    """Pull at ``h``, an array or a tensor, of the losses with one ``c`` equal to 1 and the others 0."""
    other = (1 - h) / (n - 1)
    drift = [h * (h**j - other**j) for j in range(1, order)]
    return drift + [h ** (j + 1) for j in range(order - 2, -1, -1)]


def _quadrature(order: int, n: int) -> tuple[Array, Array]:
    """Points in ``[1/n, 1]`` and weights with sum 1 that average the square of a pull exactly (Gauss-Legendre)."""
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(order + 1)
    return (1 + 1 / n + (1 - 1 / n) * points) / 2, weights / 2


@lru_cache(maxsize=256)
def _matrices(order: int, n: int) -> tuple[Array, Array, Array, Array]:
    """Rows linear in ``c``: the pull at ``K`` outputs, then the scaled derivatives, all of them 1 for cross-entropy;
    their pseudo-inverse; the factors that make the shape of them; the row of the mean pull.
    """
    import numpy as np

    nodes = np.linspace(1 / n, 1, order)
    rows = list(np.stack(_pull_rows(nodes, order, n), axis=-1))
    for i in range(1, order - 1):
        average = [(-1) ** i * comb(j, i) * float(n) ** -j for j in range(order)]
        rows.append(np.array([*average[1:], *(a / n for a in average[order - 2 :: -1])]))
    factors = np.concatenate([1 / (n * nodes[1:]), np.ones(order - 2)])
    points, weights = _quadrature(order, n)
    forms = np.stack(rows)
    return forms, np.linalg.pinv(forms, rcond=1e-14), factors, weights @ np.stack(_pull_rows(points, order, n), axis=-1)


def _minimal(c: Tensor | list[float]) -> tuple[Tensor, int]:
    c = _floating("c", c)
    length = c.shape[-1] if c.dim() else 0
    if length < 2 or length % 2:
        raise ValueError(f"`c` must have 2, 4, 6, 8, ... values (order 2, 3, 4, 5, ...), got {length}.")
    return c, length // 2 + 1


def _floating(name: str, value: Tensor | list[float]) -> Tensor:
    """``value`` as a tensor of float32 or better; what is no tensor becomes float64."""
    if not isinstance(value, Tensor):
        return tensor_of(name, value, torch.float64)
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def _like(c: Tensor, array: Array) -> Tensor:
    return torch.as_tensor(array, dtype=c.dtype, device=c.device)
