r"""TaylorGLO with hard labels, quickly: no one-hot labels, and the gradient written down instead of recorded.

With a class index :math:`T` as label, :math:`f(y, h)` takes two forms only, polynomials in :math:`h`: one for a wrong
class, :math:`f(y_{off}, h)`, and one for the true class. So with :math:`P(h) = -f(y_{off}, h)` and
:math:`Q(h) = f(y_{off}, h) - f(y_{on}, h)`

.. math:: L = \sum_k P(h_k) + Q(h_T), \qquad
          \frac{dL}{dz_k} = h_k P'(h_k) + [k = T]\, h_T Q'(h_T) - h_k \Big(\sum_j h_j P'(h_j) + h_T Q'(h_T)\Big).

Because :math:`\sum_k h_k = 1` the linear term of :math:`P` is a constant. Taken as one, its coefficient, often the
largest, cancels in algebra and not in float arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tglo_lightning.losses.functional import power_coefficients, traced

__all__ = ["at_target", "is_target", "taylor_rows", "transformed"]

Coefficients: TypeAlias = Sequence[Tensor] | Sequence[float]


def taylor_rows(theta: Tensor, logits: Tensor, target: Tensor, on: float = 1.0, off: float = 0.0) -> Tensor:
    """The TaylorGLO loss of each sample.

    Args:
        theta: parameters, shape ``(P,)``.
        logits: shape ``(N, n, ...)``, float32 or float64.
        target: class indices, int64, shape ``(N, ...)``.
        on: label of the true class.
        off: label of every other class.

    Returns:
        Tensor of shape ``(N, ...)``, of the dtype of ``logits``; differentiable any number of times in ``logits`` and
        ``theta``.
    """
    index = target.unsqueeze(1)
    # Where the values of theta can be read, plain numbers are the quickest coefficients. torch.func takes the plain
    # formula apart without further rules.
    known = None
    if theta.is_cpu and not theta.requires_grad and not traced():
        known = _numbers(tuple(theta.tolist()), on, off, torch.finfo(logits.dtype).max)
    if known is None:
        theta = theta.to(torch.promote_types(theta.dtype, logits.dtype))
        labels = torch.linspace(off, on, 2, dtype=theta.dtype, device=theta.device)
        p, p_on = power_coefficients(theta, labels).to(logits.dtype).neg().unbind(-1)
        if torch.compiler.is_compiling() and not (theta.requires_grad or transformed() or _differentiates()):
            rows: Tensor = _CompiledRows.apply(logits, index, p, p_on - p)
            return rows
        return _rows(logits, index, p.unbind(), (p_on - p).unbind())
    if torch.is_grad_enabled() and logits.requires_grad:
        return _Rows.apply(logits, index, *known)
    return _rows(logits, index, *known)


@lru_cache(maxsize=1024)
def _numbers(
    theta: tuple[float, ...], on: float, off: float, largest: float
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """``P`` and ``Q`` as numbers, lowest power first; ``None`` if one is larger than the logits' dtype can hold."""
    labels = torch.tensor([off, on], dtype=torch.float64)
    p, p_on = power_coefficients(torch.tensor(theta, dtype=torch.float64), labels).neg().unbind(-1)
    numbers = tuple(p.tolist()), tuple((p_on - p).tolist()[:-1])  # labels have no part in h^K
    return numbers if len(p) * max(map(abs, sum(numbers, ()))) < largest else None


def _rows(logits: Tensor, index: Tensor, p: Coefficients, q: Coefficients) -> Tensor:
    """``sum_k P(h_k) + Q(h_T)`` for each sample."""
    h = logits.softmax(dim=1)
    powers = (_horner(p[2:], h) * h * h).sum(dim=1, keepdim=True)
    return (powers + _horner(q, at_target(h, index)) + (p[0] * h.shape[1] + p[1])).squeeze(1)


def at_target(h: Tensor, index: Tensor) -> Tensor:
    """The output of the target's class, of shape ``(N, 1, ...)`` as ``index``; ``h`` has shape ``(N, n, ...)``."""
    if torch.compiler.is_compiling():
        return (h * is_target(h, index)).sum(dim=1, keepdim=True)
    return h.gather(1, index.expand(len(h), *index.shape[1:]))


def is_target(h: Tensor, index: Tensor) -> Tensor:
    """1 at the target's class, 0 elsewhere. The compiler makes vector instructions of it, and loops of an index."""
    classes = torch.arange(h.shape[1], device=h.device).view(-1, *[1] * (h.dim() - 2))
    return (classes == index).to(h.dtype)


def _horner(coefficients: Coefficients, h: Tensor) -> Tensor | float:
    result: Any = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * h + coefficient
    return result


def _powers(h: Tensor, count: int) -> list[Tensor]:
    powers = [h]
    for _ in range(count - 1):
        powers.append(powers[-1] * h)
    return powers


class _Rows(torch.autograd.Function):
    """:func:`_rows` with its gradient computed beside it, while the powers of ``h`` are at hand."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, p: Sequence[float], q: Sequence[float]) -> Tensor:
        h = logits.softmax(dim=1)
        h_target = h.gather(1, index)
        rows = torch.full_like(h_target, p[0] * h.shape[1] + p[1] + q[0])
        pull = torch.zeros_like(h_target)  # h_T Q'(h_T)
        for m, power in enumerate(_powers(h_target, len(q) - 1), start=1):
            rows.add_(power, alpha=q[m])
            pull.add_(power, alpha=m * q[m])
        drift = pull.neg()  # -(h_T Q'(h_T) + sum_j h_j P'(h_j))
        _, *powers = _powers(h, len(p) - 1)
        for m, power in enumerate(powers, start=2):
            total = power.sum(dim=1, keepdim=True)
            rows.add_(total, alpha=p[m])
            drift.add_(total, alpha=-m * p[m])
        gradient = (h * drift).scatter_add_(1, index, pull)
        for m, power in enumerate(powers, start=2):
            gradient.add_(power, alpha=m * p[m])
        ctx.save_for_backward(gradient, logits, index)
        ctx.save_for_forward(gradient)
        ctx.coefficients = p, q
        return rows.squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, logits, index = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative will be asked for: let autograd see the formula
            rows = _rows(logits, index, *ctx.coefficients)
            (grad_logits,) = torch.autograd.grad(rows, logits, grad_rows, create_graph=True)
        else:
            grad_logits = grad_rows.unsqueeze(1) * gradient
        return grad_logits, None, None, None

    @staticmethod
    def jvp(ctx: Any, logits: Tensor, *_: None) -> Tensor:
        (gradient,) = ctx.saved_tensors
        return (gradient * logits).sum(dim=1)


def transformed() -> bool:
    """Whether what is being compiled is within a transform of torch.func."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _differentiates() -> bool:
    """Whether what is being compiled may differentiate within, and then differentiate what it found."""
    return bool(getattr(torch._dynamo.config, "trace_autograd_ops", False))


# As torch.compiler.assume_constant_result does, which imports the compiler
transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]
_differentiates._dynamo_marked_constant = True  # type: ignore[attr-defined]


class _CompiledRows(torch.autograd.Function):
    """:func:`_rows` for the compiler, with the gradient in forward, where it fuses with all else. It has no second
    derivative, for compiled code has none unless it differentiates within.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, p: Tensor, q: Tensor) -> Tensor:
        h = logits.softmax(dim=1)
        at = is_target(h, index)
        h_target = (h * at).sum(dim=1, keepdim=True)
        powers = torch.arange(len(p), dtype=p.dtype, device=p.device)
        rows = (_horner(p[2:].unbind(), h) * h * h).sum(dim=1, keepdim=True)
        rows = rows + _horner(q.unbind(), h_target) + (p[0] * h.shape[1] + p[1])
        slope = _horner((powers * p)[2:].unbind(), h) * h * h  # h P'(h), but for its linear term
        pull = _horner((powers * q)[1:].unbind(), h_target) * h_target  # h_T Q'(h_T)
        drift = slope.sum(dim=1, keepdim=True) + pull
        ctx.save_for_backward(slope - h * drift + at * pull)
        return rows.squeeze(1)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_rows.unsqueeze(1) * gradient, None, None, None
