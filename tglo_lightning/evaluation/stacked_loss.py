r"""The TaylorGLO loss of a whole population on one batch, in few passes over memory.

With a class index :math:`T` as label a candidate's loss is :math:`\sum_k P(h_k) + Q(h_T)`, two polynomials, and its
gradient at the logits is :math:`h_k P'(h_k) + [k = T] h_T Q'(h_T) - h_k (\sum_j h_j P'(h_j) + h_T Q'(h_T))`. Both are
computed at once for all candidates, with the samples as the innermost axis: over an axis of few classes torch's
softmax takes some twenty times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import TransformType, _add_batch_dim, _unwrap_batched, peek_interpreter_stack

from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.losses.functional import power_coefficients

__all__ = ["StackedTaylorGLOLoss"]


class StackedTaylorGLOLoss(TaylorGLOLoss):
    """A :class:`TaylorGLOLoss` that is quick where ``theta`` is mapped over by :func:`torch.func.vmap`.

    Its value and first derivative are the same up to rounding; it has no second one.
    """

    @classmethod
    def of(cls, loss: TaylorGLOLoss) -> StackedTaylorGLOLoss:
        """A loss with the parameters, options and mode of ``loss``."""
        twin = cls.__new__(cls)
        twin.__dict__.update(loss.__dict__)
        return twin

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for logits ``(N, n, ...)`` and class indices."""
        # The compiler fuses the plain formula by itself
        if torch.compiler.is_compiling():
            return super().indexed(logits, target)
        transform = peek_interpreter_stack()
        if transform is None or transform.key() != TransformType.Vmap:
            return super().indexed(logits, target)
        on, off = self.label_values(logits.shape[1])
        # By hand what a rule for `vmap` would do, at a fraction of its cost
        level = transform.level()
        theta, _ = _unwrap_batched(self.theta, level)
        logits, target = (_leading(*_unwrap_batched(value, level)) for value in (logits, target))
        p, q = _coefficients(theta, on, off, logits.dtype)
        rows: Tensor = _add_batch_dim(_rows(logits, target, p, q), 0, level)
        return rows


def _leading(stack: Tensor, dim: int | None) -> Tensor:
    return stack[None] if dim is None else stack if dim == 0 else stack.movedim(dim, 0)


def _rows(logits: Tensor, target: Tensor, p: list[Tensor], q: list[Tensor]) -> Tensor:
    """Losses ``(B, N, ...)`` for logits ``(B, N, n, ...)``, targets ``(B or 1, N, ...)`` and :func:`_coefficients`."""
    with torch.no_grad():
        h = logits.movedim(2, 1).contiguous().softmax(dim=1)
        shape, classes = h.shape, h.shape[1]
        h = h.flatten(2)
        index = target.flatten(1).unsqueeze(1).expand(len(h), -1, -1)
        h_target = h.gather(1, index)
        square = h * h
        rows = (_horner(p[2:], h) * square).sum(dim=1, keepdim=True)
        rows += _horner(q, h_target) + (p[0] * classes + p[1])
        gradient = _horner(_derivative(p)[1:], h) * square  # h P'(h), less the linear term, which cancels
        pull = _horner(_derivative(q), h_target) * h_target  # h_T Q'(h_T)
        drift = gradient.sum(dim=1, keepdim=True).add_(pull)
        gradient.addcmul_(h, drift, value=-1).scatter_add_(1, index, pull)
        gradient = gradient.view(shape).movedim(1, 2)
        rows = rows.view(shape[:1] + shape[2:])
    # Worth `rows`, with this gradient
    slope = (gradient * logits).sum(dim=2)
    return rows + (slope - slope.detach())


def _coefficients(theta: Tensor, on: float, off: float, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """``P`` and ``Q`` of each candidate, lowest power first, each of shape ``(B, 1, 1)``."""
    key = (on, off, dtype)
    known = getattr(theta, "_polynomials", None)
    if known is None or known[0] != key:
        theta64 = theta.double() if theta.device.type != "mps" else theta
        labels = torch.tensor([off, on], dtype=theta64.dtype, device=theta.device)
        p, p_on = power_coefficients(theta64, labels).neg().unbind(-1)
        # Labels have no part in the highest power of h
        stacks = [stack.to(dtype)[..., None, None].unbind(1) for stack in (p, (p_on - p)[:, :-1])]
        # They stay the same for a whole training
        known = (key, *stacks)
        theta.__dict__["_polynomials"] = known
    return known[1], known[2]


def _derivative(coefficients: list[Tensor]) -> list[Tensor]:
    return [m * coefficient for m, coefficient in enumerate(coefficients)][1:]


def _horner(coefficients: list[Tensor], h: Tensor) -> Tensor:
    result = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = torch.addcmul(coefficient, result, h)
    return result
