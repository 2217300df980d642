r"""The TaylorGLO loss of a whole population on one batch, in few passes over memory.

With a class index :math:`T` as label a candidate's loss is :math:`\sum_k P(h_k) + Q(h_T)`, two polynomials, and its
gradient at the logits is :math:`h_k P'(h_k) + [k = T] h_T Q'(h_T) - h_k (\sum_j h_j P'(h_j) + h_T Q'(h_T))`. Both are
computed at once for all candidates, with the samples as the innermost axis: over an axis of few classes torch's
softmax takes some twenty times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch._C._functorch import TransformType, _add_batch_dim, _unwrap_batched, peek_interpreter_stack

from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.losses.functional import power_coefficients

__all__ = ["StackedTaylorGLOLoss"]


class StackedTaylorGLOLoss(TaylorGLOLoss):
    """A :class:`TaylorGLOLoss` that is quick where it is mapped over by :func:`torch.func.vmap`, or compiled.

    Its value and first derivative are the same up to rounding; it has no second one.

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
        """Coefficients of ``P`` from h^2 on, of ``h P'`` from h^2 on, of ``Q`` with all constants, and of ``Q'``.

        Lowest power first. ``theta`` has shape ``(B, P)``, the result ``(B, 4 K - 3)``. The linear term of ``P`` adds
        up to a constant, and has no gradient.
        """
        exact = theta if theta.device.type == "mps" else theta.double()
        on, off = self.label_values(max(self.classes, 1))
        labels = torch.tensor([off, on], dtype=exact.dtype, device=theta.device)
        f_off, f_on = power_coefficients(exact, labels).unbind(-1)
        p, q = -f_off, (f_off - f_on)[:, :-1]  # labels have no part in the highest power of h
        powers = torch.arange(p.shape[1], dtype=exact.dtype, device=theta.device)
        slopes = (powers * p)[:, 2:], (powers[:-1] * q)[:, 1:]
        constant = q[:, :1] + self.classes * p[:, :1] + p[:, 1:2]
        return torch.cat([p[:, 2:], slopes[0], constant, q[:, 1:], slopes[1]], dim=1)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for logits ``(N, n, ...)`` and class indices."""
        if torch.compiler.is_compiling():
            return _rows(logits[None], target[None], self.coefficients[None])[0]
        self.classes = logits.shape[1]
        transform = peek_interpreter_stack()
        if transform is None or transform.key() != TransformType.Vmap:
            return super().indexed(logits, target)
        # By hand what a rule for `vmap` would do, at a fraction of its cost
        level = transform.level()
        stacks = (_leading(*_unwrap_batched(value, level)) for value in (logits, target, self.coefficients))
        rows: Tensor = _add_batch_dim(_rows(*stacks), 0, level)
        return rows


def _leading(stack: Tensor, dim: int | None) -> Tensor:
    return stack[None] if dim is None else stack if dim == 0 else stack.movedim(dim, 0)


def _rows(logits: Tensor, target: Tensor, coefficients: Tensor) -> Tensor:
    """Losses ``(B, N, ...)`` for logits ``(B, N, n, ...)``, targets ``(B or 1, N, ...)``, coefficients ``(B, C)``."""
    order = (coefficients.shape[1] + 3) // 4
    columns = coefficients.to(logits.dtype)[..., None, None].unbind(1)
    p, dp, q, dq = (columns[i:j] for i, j in pairwise((0, order - 1, 2 * order - 2, 3 * order - 2, 4 * order - 3)))
    with torch.no_grad():
        h = logits.movedim(2, 1).contiguous().softmax(dim=1)
        shape = h.shape
        h = h.flatten(2)
        index = target.flatten(1).unsqueeze(1)
        h_target = _at(h, index)
        square = h * h
        rows = (_horner(p, h) * square).sum(dim=1, keepdim=True) + _horner(q, h_target)
        gradient = _horner(dp, h) * square
        pull = _horner(dq, h_target) * h_target
        drift = gradient.sum(dim=1, keepdim=True) + pull
        gradient = _add_at(torch.addcmul(gradient, h, drift, value=-1), index, pull)
        gradient = gradient.view(shape).movedim(1, 2)
        rows = rows.view(shape[:1] + shape[2:])
    # Worth `rows`, with this gradient
    slope = (gradient * logits).sum(dim=2)
    return rows + (slope - slope.detach())


# The compiler makes vector instructions of a comparison, and loops of an index


def _at(h: Tensor, index: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return (h * _hit(h, index)).sum(dim=1, keepdim=True)
    return h.gather(1, index.expand(len(h), -1, -1))


def _add_at(h: Tensor, index: Tensor, value: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return h + _hit(h, index) * value
    return h.scatter_add_(1, index.expand(len(h), -1, -1), value)


def _hit(h: Tensor, index: Tensor) -> Tensor:
    return (torch.arange(h.shape[1], device=h.device).view(-1, 1) == index).to(h.dtype)


def _horner(coefficients: Sequence[Tensor], h: Tensor) -> Tensor:
    result = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = torch.addcmul(coefficient, result, h)
    return result
