"""A pass over some candidates as compiled code, which a search keeps from population to population."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.evaluation.vectorized.stack import Step, mapped

__all__ = ["CompiledGradients"]


class CompiledGradients:
    """Gradients of the losses of ``size`` candidates: forward, loss and backward compiled as one graph.

    Tracing takes as long as hundreds of steps of a small network, so what was traced for the first population serves
    all populations of the same size. Torch traces again by itself where a step depends on a value that has changed.

    Raises:
        RuntimeError: torch is too old.
    """

    _step: Step

    def __init__(self, size: int) -> None:
        if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
            raise RuntimeError(f"torch {torch.__version__} does not compile gradients, newer versions do")
        self.size = size
        # Torch gives up on a code that it has compiled eight times; each size has a code of its own
        f = type(self)._gradients
        own = FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
        self._call: Callable[..., Sequence[Tensor | None]] = torch.compile(MethodType(own, self), dynamic=False)

    @contextmanager
    def of(self, step: Step) -> Iterator[None]:
        """Within, the losses are those of ``step``, of a module that a Trainer has set up."""
        self._step = step
        try:
            with torch._dynamo.config.patch(trace_autograd_ops=True):
                yield
        finally:
            # It holds all of its population
            del self._step

    def __call__(
        self, params: list[Tensor], buffers: list[Tensor], arguments: tuple[Any, ...], share: float
    ) -> Sequence[Tensor | None]:
        """``share`` of the gradient of each of the stacks ``params``, ``None`` where a loss does not depend on one."""
        return self._call(params, buffers, arguments, share)

    def _gradients(
        self, params: list[Tensor], buffers: list[Tensor], arguments: tuple[Any, ...], share: float
    ) -> Sequence[Tensor | None]:
        losses = mapped(self._step, [*params, *buffers], arguments, self.size > 1)
        # As outside a Trainer's autocast, where backward runs
        with torch.autocast(params[0].device.type, enabled=False):
            return torch.autograd.grad(losses, params, torch.full_like(losses, share), allow_unused=True)
