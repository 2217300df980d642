r"""The TaylorGLO loss of a whole population on one batch, in few passes over memory.

With a class index :math:`T` as label a candidate's loss is :math:`\sum_k P(h_k) + Q(h_T)`, two polynomials, and its
gradient at the logits is :math:`h_k P'(h_k) + [k = T] h_T Q'(h_T) - h_k (\sum_j h_j P'(h_j) + h_T Q'(h_T))`. Both are
computed at once for all candidates, with the samples as the innermost axis: over an axis of few classes torch's
softmax takes some twenty times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tglo_lightning.evaluation.vectorized.mapping import on_stacks
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.losses.functional import power_coefficients
from tglo_lightning.losses.hard_labels import at_target, is_target, transformed

__all__ = ["StackedTaylorGLOLoss"]


class StackedTaylorGLOLoss(TaylorGLOLoss):
    """A :class:`TaylorGLOLoss` that is quick where it is mapped over by :func:`torch.func.vmap`.

    Its value and first derivative are the same up to rounding; where it is mapped over it has no second one.

    Attributes:
        coefficients: buffer, what :meth:`prepare` makes of ``theta``; candidates have to have their own.
        classes: classes of the logits of the last call, 0 before.
    """

    coefficients: Tensor
    classes: int

    @classmethod
    def of(cls, loss: TaylorGLOLoss) -> StackedTaylorGLOLoss:
        """A loss with the parameters, options and mode of ``loss``."""
        twin = cls.__new__(cls)
        twin.__dict__.update(loss.__dict__)
        twin._buffers, twin.classes = dict(loss._buffers), 0
        twin.register_buffer("coefficients", twin.prepare(loss.theta[None])[0], persistent=False)
        return twin

    def prepare(self, theta: Tensor) -> Tensor:
        """Coefficients, lowest power first: of ``P`` and ``h P'`` from h^2 on, of ``Q`` and ``h Q'`` from h on,
        and what is constant.

        ``theta`` has shape ``(B, P)``, the result ``(B, 4 (K - 1) + 1)``. The linear term of ``P`` adds up to a
        constant, and has no gradient.
        """
        exact = theta if theta.device.type == "mps" else theta.double()
        on, off = self.label_values(max(self.classes, 1))
        labels = torch.tensor([off, on], dtype=exact.dtype, device=theta.device)
        f_off, f_on = power_coefficients(exact, labels).unbind(-1)
        p, q = -f_off, (f_off - f_on)[:, :-1]  # labels have no part in the highest power of h
        powers = torch.arange(p.shape[1], dtype=exact.dtype, device=theta.device)
        constant = q[:, :1] + self.classes * p[:, :1] + p[:, 1:2]
        return torch.cat([p[:, 2:], (powers * p)[:, 2:], q[:, 1:], (powers[:-1] * q)[:, 1:], constant], dim=1)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for logits ``(N, n, ...)`` and class indices."""
        if torch.compiler.is_compiling():
            # By itself a candidate may differentiate within its step, and twice
            if not transformed():
                return super().indexed(logits, target)
            return _rows(logits[None], target[None], self.coefficients[None])[0]
        self.classes = logits.shape[1]
        rows = on_stacks(_rows, logits, target, self.coefficients)
        return super().indexed(logits, target) if rows is None else rows


def _rows(logits: Tensor, target: Tensor, coefficients: Tensor) -> Tensor:
    """Losses ``(B, N, ...)`` for logits ``(B, N, n, ...)``, targets ``(B or 1, N, ...)``, coefficients ``(B, C)``."""
    table = coefficients.to(logits.dtype)[..., None, None]
    # A value and a slope side by side, one pass for both; the leading axis is the power
    pairs = table[:, :-1].unflatten(1, (4, -1)).permute(2, 1, 0, 3, 4)
    with torch.no_grad():
        h = logits.movedim(2, 1).contiguous().softmax(dim=1)
        shape = h.shape
        h = h.flatten(2)
        index = target.flatten(1).unsqueeze(1)
        h_target = at_target(h, index)
        every = _horner(pairs[:, :2], h).mul_(h * h)
        hit = _horner(pairs[:, 2:], h_target).mul_(h_target)
        rows, drift = (every.sum(dim=2, keepdim=True) + hit).unbind()
        gradient = _add_at(torch.addcmul(every[1], h, drift, value=-1), index, hit[1])
        gradient = gradient.view(shape).movedim(1, 2)
        rows = (rows + table[:, -1]).view(shape[:1] + shape[2:])
    # Worth `rows`, with this gradient
    slope = (gradient * logits).sum(dim=2)
    return rows + (slope - slope.detach())


def _add_at(h: Tensor, index: Tensor, value: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return h + is_target(h, index) * value
    return h.scatter_add_(1, index.expand(len(h), -1, -1), value)


def _horner(coefficients: Tensor, h: Tensor) -> Tensor:
    """Polynomials in ``h``, the lowest power first, always a new tensor."""
    *lower, highest = coefficients.unbind()
    if not lower:
        return highest.expand(torch.broadcast_shapes(highest.shape, h.shape)).clone()
    result = highest
    # Two numbers a product and a sum would be one operation, but not of vector instructions
    for coefficient in reversed(lower):
        result = (result * h).add_(coefficient)
    return result
