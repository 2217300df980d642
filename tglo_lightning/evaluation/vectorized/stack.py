"""Stacked parameters and buffers of some candidates, and one pass of ``training_step`` over all of them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.vectorized.vectorizable import NotVectorizable
from tglo_lightning.module.preserving import plain_attributes

if TYPE_CHECKING:
    from tglo_lightning.evaluation.vectorized.compilation import CompiledGradients

__all__ = ["Chunk", "Step", "mapped"]


class Step:
    """``training_step`` of a module as a function of its parameters and buffers.

    The tensors take their places in the module for the time of a call; shared ones stay shared.
    (``torch.func.functional_call`` does the same, and looks up every name at each call.)

    Attributes:
        params, buffers: parameters that are trained, and buffers, by name.

    Raises:
        NotVectorizable: in the first call, for a side effect that candidates in one pass would share.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.params = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.buffers = dict(module.named_buffers())
        self.originals: list[Tensor] = [*self.params.values(), *self.buffers.values()]
        place = {id(tensor): index for index, tensor in enumerate(self.originals)}
        self.slots: list[tuple[dict[str, Any], str, int]] = [
            (table, name, place[id(tensor)])
            for owner in module.modules()
            for table in (owner._parameters, owner._buffers)
            for name, tensor in table.items()
            if id(tensor) in place
        ]
        self.linears = [m for m in module.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        self.checked = False

    def __call__(self, values: Sequence[Tensor], arguments: tuple[Any, ...], mapped: bool = False) -> Tensor:
        """The loss of one candidate, whose tensors are in the order of ``params`` and ``buffers``, on one batch.

        ``mapped`` says whether the values are mapped over by :func:`torch.func.vmap`.
        """
        if self.checked or torch.compiler.is_compiling():
            return self._run(values, arguments, mapped)
        state, batch = _plain_state(self.module), _versions(arguments)
        loss = self._run(values, arguments, mapped)
        self.checked = True
        if changed := [name for name, value in _plain_state(self.module).items() if state.get(name, self) != value]:
            raise NotVectorizable(f"training_step changes {', '.join(changed)}, which all candidates would share")
        if batch != _versions(arguments):
            raise NotVectorizable("training_step changes its batch in place")
        return loss

    def _run(self, values: Sequence[Tensor], arguments: tuple[Any, ...], mapped: bool) -> Tensor:
        linears = self.linears if mapped else []
        for table, name, index in self.slots:
            table[name] = values[index]
        for linear in linears:
            vars(linear)["forward"] = partial(_linear, linear)
        try:
            output = self.module.training_step(*arguments)
            anew = [name for table, name, index in self.slots if table[name] is not values[index]]
        finally:
            for table, name, index in self.slots:
                table[name] = self.originals[index]
            for linear in linears:
                del vars(linear)["forward"]
        if anew:
            raise NotVectorizable(f"training_step assigns {', '.join(anew)} anew; in place it would work")
        loss = output["loss"] if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor) or loss.dim() > 0:
            raise NotVectorizable("training_step does not return a scalar loss")
        return loss


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    """The forward of a linear layer as :func:`torch.func.vmap` maps it best.

    Of :func:`torch.nn.functional.linear` it makes copies on the way. Here the samples are the innermost axis of the
    result in memory, where the loss wants them.
    """
    if module.bias is None or x.dim() != 2:
        return F.linear(x, module.weight, module.bias)
    product = module.weight @ x.mT
    # Autocast lowers the factors of a product, not the terms of a sum
    return (product + module.bias.unsqueeze(1).to(product.dtype)).mT


def _plain_state(module: nn.Module) -> dict[str, Any]:
    """Plain attributes by name, see :func:`~tglo_lightning.module.preserving.plain_attributes`."""
    return {
        f"{path}.{name}" if path else name: value
        for path, owner in module.named_modules()
        for name, value in plain_attributes(vars(owner)).items()
    }


def _versions(arguments: Any) -> list[int]:
    return [leaf._version for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]


def mapped(step: Step, values: Sequence[Tensor], arguments: tuple[Any, ...], stacked: bool = True) -> Tensor:
    """One loss a candidate, shape ``(size,)``; a single candidate is not stacked, and trains as it would alone."""
    if not stacked:
        return step(values, arguments).unsqueeze(0)
    run: Callable[..., Tensor] = torch.func.vmap(lambda *own: step(own, arguments, True), randomness="different")
    return run(*values)


class Chunk:
    """Some candidates, trained in one pass.

    Args:
        step: the training step.
        rates: factor on the learning rates of each member.
        buffers: values of some buffers by name, one row a member; the others are the module's.

    Attributes:
        params, buffers: the stacks by name, candidates first.
        factor: factors on the learning rates; ``None`` if all are 1.
        compiled: the pass as compiled code, for this number of candidates.
    """

    def __init__(self, step: Step, rates: Mapping[int, float], buffers: Mapping[str, Tensor]) -> None:
        self.step, self.members, self.size, self.mapped = step, list(rates), len(rates), len(rates) > 1
        self.compiled: CompiledGradients | None = None
        self.params: dict[str, Tensor] = {name: nn.Parameter(self.stack(p)) for name, p in step.params.items()}
        self.buffers = {name: self.stack(buffer) for name, buffer in step.buffers.items()}
        for name, rows in buffers.items():
            self.buffers[name] = rows if self.mapped else rows[0]
        self._params, self._buffers = list(self.params.values()), list(self.buffers.values())
        factors = torch.tensor(list(rates.values()), device=self._params[0].device)
        self.factor = None if bool((factors == 1).all()) else factors if self.mapped else factors[0]

    def stack(self, value: Tensor) -> Tensor:
        """The same value for each candidate."""
        return value.detach().expand(self.size, *value.shape).clone() if self.mapped else value.detach().clone()

    def weights(self, member: int) -> dict[str, Tensor]:
        """Parameters and buffers of one candidate."""
        row, both = self.members.index(member), {**self.params, **self.buffers}
        return {name: value.detach()[row] if self.mapped else value.detach() for name, value in both.items()}

    def keep(self, members: Sequence[int], state: dict[Tensor, Any]) -> None:
        """Let go of the other candidates, in an optimizer's state too."""
        if len(members) == self.size:
            return
        index = torch.tensor([self.members.index(member) for member in members], device=self._params[0].device)
        for name, old in self.params.items():
            before = state.pop(old, None)
            if members:
                self.params[name] = nn.Parameter(old.detach()[index])
            if members and before is not None:
                state[self.params[name]] = {
                    key: value[index] if isinstance(value, Tensor) and value.shape[:1] == (self.size,) else value
                    for key, value in before.items()
                }
        if members:
            self.buffers = {name: buffer[index] for name, buffer in self.buffers.items()}
            self.factor = None if self.factor is None else self.factor[index]
        self.members, self.size, self.compiled = list(members), len(members), None
        self._params, self._buffers = list(self.params.values()), list(self.buffers.values())

    def gradients(self, names: Sequence[str]) -> list[Tensor]:
        """Gradients of the named parameters, as far as there are any, candidates first."""
        found = [grad for name in names if (grad := self.params[name].grad) is not None]
        return found if self.mapped else [grad[None] for grad in found]

    def backward(
        self, arguments: tuple[Any, ...], share: float = 1.0, forward: Callable[[], Any] = nullcontext
    ) -> None:
        """Add ``share`` of the losses' gradients to those of the stacks; ``forward`` gives the losses' context."""
        if self.compiled is None:
            with forward():
                losses = self.losses(arguments)
            losses.backward(torch.full_like(losses, share))
            return
        with forward():
            gradients = self.compiled(self._params, self._buffers, arguments, share)
        for stack, gradient in zip(self._params, gradients, strict=True):
            if gradient is not None:
                stack.grad = gradient if stack.grad is None else stack.grad + gradient

    def losses(self, arguments: tuple[Any, ...]) -> Tensor:
        """One loss a candidate, shape ``(size,)``."""
        return mapped(self.step, [*self._params, *self._buffers], arguments, self.mapped)


class ComputeRandomness:
    """Keeps what a computation draws apart from the data's draws: batches do not depend on the number of candidates."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stochastic = False  # whether the computation has drawn from torch's generators yet
        self.inside: list[Tensor] | None = None  # states of torch's generators for its next draws

    @contextmanager
    def __call__(self) -> Iterator[None]:
        outside = self.states()
        before = outside if self.inside is None else self.inside
        self.set_states(before)
        try:
            yield
        finally:
            self.inside = self.states()
            self.stochastic |= not all(map(torch.equal, before, self.inside))
            self.set_states(outside)

    def states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else states

    def set_states(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self.device)


@contextmanager
def flushed() -> Iterator[None]:
    """Within, numbers too small for their type's full precision count as 0 on the CPU.

    The square of an output that has come to 1e-20 is one, and a processor takes a hundred times as long over it.
    """
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    changed = bool(tiny * 0.5 > 0) and torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if changed:
            torch.set_flush_denormal(False)


def keep_heap() -> None:
    """Let glibc keep freed memory at hand.

    It gives blocks above a threshold back, and asks for them again in the next step, at a page fault every 4 KiB. The
    threshold rises to twice the largest block under 32 MiB that was freed.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def alike(chunks: Sequence[Chunk], randomness: ComputeRandomness) -> Iterator[Chunk]:
    """The chunks, each with the same draws of Python's and numpy's generators, which draw once for a whole chunk.

    Chunks of one candidate have the same draws of torch's generators too, those that the candidate would have alone.
    """
    if len(chunks) == 1:
        yield chunks[0]
        return
    python, of_numpy = random.getstate(), _numpy_state()
    of_torch = randomness.states() if chunks[0].size == 1 else []
    yield chunks[0]
    drawn = random.getstate() != python or not all(map(np.array_equal, _numpy_state(), of_numpy))
    drawn_by_torch = of_torch and not all(map(torch.equal, randomness.states(), of_torch))
    for chunk in chunks[1:]:
        if drawn:
            random.setstate(python)
            np.random.set_state(of_numpy)  # noqa: NPY002
        if drawn_by_torch:
            randomness.set_states(of_torch)
        yield chunk


def _numpy_state() -> Any:
    return np.random.get_state()  # noqa: NPY002


def rehearse(step: Step, arguments: tuple[Any, ...], trainer: Any) -> int:
    """Bytes that one candidate's pass saves for backward."""
    saved: list[int] = []

    def count(value: Tensor) -> Tensor:
        saved.append(value.nbytes)
        return value

    # On copies: a pass may change buffers, and draw random numbers
    values = [*step.params.values(), *(buffer.clone() for buffer in step.buffers.values())]
    with (
        isolated(quiet=False),
        torch.autograd.graph.saved_tensors_hooks(count, lambda value: value),
        trainer.precision_plugin.train_step_context(),
    ):
        step(values, arguments)
    return sum(saved)


def available_memory(device: torch.device) -> int:
    """Bytes that are free on ``device``; 4 GiB where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 2**32
