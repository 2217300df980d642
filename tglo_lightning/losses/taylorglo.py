"""The TaylorGLO loss as a module."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses import functional
from tglo_lightning.losses.base import SeparableLoss
from tglo_lightning.losses.functional import expanded, horner

FEW_CLASSES = 16


class TaylorGLOLoss(SeparableLoss):
    r"""A polynomial of label and prediction, :math:`f(y, h) = \sum \theta_{ab} (y - \theta_0)^a (h - \theta_1)^b`.

    A drop-in for :class:`torch.nn.CrossEntropyLoss`; the other arguments, shapes and errors are those of
    :class:`~tglo_lightning.losses.ClassificationLoss`.

    Args:
        theta: ``(order (order + 1) / 2) + 2`` numbers: the centres of label and prediction, then the coefficients in
            the order of :func:`~tglo_lightning.losses.functional.terms`. A list is kept in float64. ``None`` gives
            zeros, where a search starts: loss and gradient are 0, so a network that is trained with it learns nothing.
        order: order of the polynomial, at least 2.

    Raises:
        ValueError: ``theta`` of another length, or not finite.

    Source: arXiv 2002.00059.

    >>> loss = TaylorGLOLoss([0, 0.5, 1.0, 0, 0, 2.0, 0, 0])
    >>> loss
    TaylorGLOLoss(order=3, f(y, h) = 1 (h - 0.5) + 2 y (h - 0.5))
    >>> loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))  # h = (0.88, 0.12)
    tensor(-0.7616)
    >>> TaylorGLOLoss()  # nothing is learned from it
    TaylorGLOLoss(order=3, f(y, h) = 0)
    """

    family = "taylorglo"

    def __init__(
        self,
        theta: Tensor | Sequence[float] | None = None,
        *,
        order: int = 3,
        **options: Any,
    ) -> None:
        length = functional.num_parameters(order)
        tensor = functional.theta_tensor([0.0] * length if theta is None else theta, order).detach().clone()
        if tensor.dim() != 1:
            raise ValueError(f"`theta` must be one vector of {length} values, got shape {tuple(tensor.shape)}.")
        super().__init__(tensor, **options)
        self.theta = tensor  # of the dtype that it was given in

    @classmethod
    def of(cls, theta: Sequence[float], **options: Any) -> TaylorGLOLoss:
        """Build the loss with parameters ``theta``, of the order that their number tells."""
        return cls(theta, order=functional.order_of(theta), **options)

    @property
    def order(self) -> int:
        """Order of the polynomial."""
        return functional.order_of(self.theta)

    @property
    def expression(self) -> str:
        """``f(y, h)`` in Python, see :func:`~tglo_lightning.search.export_loss`."""
        names = [name if t == 0 else f"({name} - {t})" for name, t in zip("yh", self.theta.tolist(), strict=False)]
        values = zip(functional.terms(self.order), self.theta.tolist()[functional.CENTRES :], strict=True)
        parts = []
        for powers, value in values:
            factors = [n if power == 1 else f"{n} ** {power}" for n, power in zip(names, powers, strict=True) if power]
            parts += [" * ".join([repr(value), *factors])] if value else []
        return f"({' + '.join(parts)})" if parts else "0.0 * h"

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        return functional.formula(self.theta)

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``f(y, h)``, for ``y`` and ``h`` of any shape."""
        return functional.taylor_f(self.theta.to(h.dtype), y, h)

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``df/dh``, elementwise, a polynomial of one degree less."""
        return functional.taylor_gamma(self.theta.to(h.dtype), y, h)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        r"""Losses of shape ``(N, ...)`` for class indices: :math:`\sum_k P(h_k) + Q(h_T)`, two polynomials in ``h``.

        :math:`P(h) = -f(y_{off}, h)` is what an output of a wrong class adds, and
        :math:`Q(h) = f(y_{off}, h) - f(y_{on}, h)` what the true class adds beside.
        """
        p, q = self._polynomials(*self.label_values(logits.shape[1]))
        # Over a short axis that is innermost in memory torch's softmax is slow: 2.5 times at 10 classes, loss included
        axis = 0 if logits.shape[1] < FEW_CLASSES else 1
        h = logits.movedim(1, axis).softmax(dim=axis)
        hit = h.gather(axis, target.unsqueeze(axis)).squeeze(axis)
        rest = (horner(p[2:], h) * h * h).sum(dim=axis)
        # The linear term of P adds up to a constant. Added class by class, its coefficient, often the largest, would
        # leave rounding errors in the gradient
        losses: Tensor = rest + (horner(q, hit) + (p[0] * logits.shape[1] + p[1]))
        return losses

    def _polynomials(self, on: float, off: float) -> tuple[list[Any], list[Any]]:
        """Coefficients of ``P`` and ``Q``, lowest power first: numbers where ``theta`` can be read, else tensors."""
        theta = self.theta
        if functional.inspectable(theta) and not theta.requires_grad:
            numbers = tuple(theta.tolist())
            f_off, f_on = _numbers(numbers, off), _numbers(numbers, on)[:-1]
        else:
            exact = theta if theta.device.type == "mps" else theta.double()
            labels = torch.linspace(off, on, 2, dtype=exact.dtype, device=exact.device)
            both = _powers(exact.unsqueeze(-1).unbind(), labels)
            f_off, f_on = [c[0] for c in both], [c[1] for c in both[:-1]]
        # Labels have no part in the highest power of h
        return [-c for c in f_off], [a - b for a, b in zip(f_off[:-1], f_on, strict=True)]

    def extra_repr(self) -> str:
        """The order, the polynomial, and the arguments that are not the defaults."""
        return f"order={self.order}, {super().extra_repr()}"


def _powers(values: Sequence[Any], y: Any) -> list[Any]:
    """Coefficients of ``f(y, h)`` in powers of ``h`` at a label."""
    return expanded([0.0, *functional.at_label(values, y)], values[1])


_numbers = lru_cache(maxsize=1024)(_powers)
