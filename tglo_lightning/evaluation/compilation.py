"""A pass over some candidates as compiled code, which a search keeps from population to population."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.evaluation.initial import replicate
from tglo_lightning.evaluation.stack import Step, mapped
from tglo_lightning.evaluation.vectorizable import silence

__all__ = ["CompiledGradients"]


class CompiledGradients:
    """Gradients of the candidates' losses: forward, loss and backward compiled as one graph.

    Tracing takes as long as hundreds of steps of a small network, so what was traced once, on a copy of the first
    population's module, serves all populations of the same size. Torch traces again by itself where a step depends on
    anything else that has changed.

    Args:
        module: a module that a Trainer has set up; it is copied.
        size: number of candidates.

    Raises:
        RuntimeError: torch is too old.
    """

    def __init__(self, module: Any, size: int) -> None:
        if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
            raise RuntimeError(f"torch {torch.__version__} does not compile gradients, newer versions do")
        self.size = size
        self._module = replicate(module)
        silence(self._module)
        self._step = Step(self._module)
        self._device = next(iter(self._step.params.values())).device.type
        # Torch gives up on a code that it has compiled eight times; each size has a code of its own
        f = type(self)._gradients
        own = FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
        self._call: Callable[..., Sequence[Tensor | None]] = torch.compile(MethodType(own, self), dynamic=False)

    @contextmanager
    def under(self, trainer: Any) -> Iterator[None]:
        """Within, steps may ask the module for this Trainer."""
        self._module.trainer = trainer
        try:
            with torch._dynamo.config.patch(trace_autograd_ops=True):
                yield
        finally:
            # It holds all of its population
            self._module.trainer = None

    def __call__(
        self, params: list[Tensor], buffers: list[Tensor], arguments: tuple[Any, ...], share: float
    ) -> Sequence[Tensor | None]:
        """``share`` of the gradient of each of the stacks ``params``, ``None`` where a loss does not depend on one.

        The buffers may change.
        """
        return self._call(params, buffers, arguments, share)

    def _gradients(
        self, params: list[Tensor], buffers: list[Tensor], arguments: tuple[Any, ...], share: float
    ) -> Sequence[Tensor | None]:
        losses = mapped(self._step, [*params, *buffers], arguments, self.size)
        # As outside a Trainer's autocast, where backward runs
        with torch.autocast(self._device, enabled=False):
            return torch.autograd.grad(losses, params, torch.full_like(losses, share), allow_unused=True)
