"""Losses with a name: those that the method's authors published, and Taylor expansions of cross-entropy.

A name stands for a ``theta`` (centres first, factorials absorbed; see :class:`~tglo_lightning.losses.TaylorGLOLoss`):

- ``"mnist_published"``: evolved for MNIST in the published experiments of S. Gonzalez and R. Miikkulainen, whose method
  is that of arXiv 2002.00059 and 2010.00788. Order 3.
- ``"early_published"``: an earlier one of theirs. Order 3.
- ``"cross_entropy_2"`` to ``"cross_entropy_10"``: :func:`cross_entropy_expansion` of that order, computed.
"""

from collections.abc import Sequence

from tglo_lightning.losses.functional import num_parameters, terms

EVOLVED = {
    "mnist_published": (-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513),
    "early_published": (0.8439, 1.4872, 1.5742, -1.4446, 2.3616, -0.6632, -2.8569, -1.1313),
}
EXPANSIONS = {f"cross_entropy_{order}": order for order in range(2, 11)}
PUBLISHED_NAMES = (*EVOLVED, *EXPANSIONS)


def published_theta(name: str) -> list[float]:
    """The parameters that a name stands for, in the order of :class:`~tglo_lightning.losses.TaylorGLOLoss`.

    Raises:
        ValueError: no loss of this name.

    >>> published_theta("mnist_published")[:2]
    [-10.9408, 7.5216]
    """
    if not isinstance(name, str):
        raise TypeError(f"`theta` must be a name here, got {name!r}.")
    if name in EVOLVED:
        return list(EVOLVED[name])
    if name in EXPANSIONS:
        return cross_entropy_expansion(EXPANSIONS[name])
    raise ValueError(f"`theta` has no published value called {name!r}; known: {', '.join(PUBLISHED_NAMES)}.")


def published_name(theta: Sequence[float]) -> str | None:
    """The name whose parameters are exactly ``theta``, ``None`` if there is none.

    >>> published_name(published_theta("early_published"))
    'early_published'
    """
    return next((name for name in PUBLISHED_NAMES if published_theta(name) == list(theta)), None)


def cross_entropy_expansion(order: int) -> list[float]:
    r"""Cross-entropy, ``f(y, h) = y log h``, expanded around ``y = h = 1/2`` up to terms of total degree ``order``.

    With :math:`\log h = \log \tfrac12 + \sum_b s_b (h - \tfrac12)^b`, :math:`s_b = (-1)^{b+1} 2^b / b`, and ``y = 1/2 +
    (y - 1/2)`` the coefficients are :math:`\theta_{0b} = s_b / 2` for ``b <= order``, :math:`\theta_{1b} = s_b` for ``b
    <= order - 1``, and zero for higher powers of the label. Terms without ``h`` have no gradient and are left out.

    >>> cross_entropy_expansion(2)
    [0.5, 0.5, 1.0, -1.0, 2.0]
    """
    num_parameters(order)
    label_factor = {0: 0.5, 1: 1.0}
    series = {b: (-1) ** (b + 1) * 2.0**b / b for b in range(1, order + 1)}
    return [0.5, 0.5, *(label_factor.get(a, 0.0) * series[b] for a, b in terms(order))]
