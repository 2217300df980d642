"""The training loop of a population: Lightning's, with stacks of parameters in place of one network."""

from __future__ import annotations

import copy
from collections import OrderedDict
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.evaluation.resuming import Memory, load_training, set_progress
from tglo_lightning.evaluation.trainer import Training
from tglo_lightning.evaluation.vectorized.compilation import CompiledGradients
from tglo_lightning.evaluation.vectorized.mixed import kinds_of, mixed_rows, own_weights
from tglo_lightning.evaluation.vectorized.stack import (
    Chunk,
    ComputeRandomness,
    Step,
    alike,
    available_memory,
    flushed,
    keep_heap,
    rehearse,
)
from tglo_lightning.evaluation.vectorized.vectorizable import check_static, silenced, transfers_batches
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.loaders import generators
from tglo_lightning.search import Criterion
from tglo_lightning.search.seeding import derived_seed, seed_all

# One kernel for the whole step, unless the user chose otherwise
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


class PopulationLoop(Callback):
    """Takes over a fit once Lightning has set everything up, trains the population, and ends the fit.

    Args:
        training: what is trained; if its criteria are of several kinds, the module has a
            :class:`~tglo_lightning.evaluation.vectorized.mixed.MixedLoss`.
        chunk_size: candidates in one pass; ``None`` for as many as fit into the memory.
        compiled: compiled passes to use and to fill; ``None`` to compile nothing.

    Attributes:
        stochastic: whether training drew random numbers of torch beside those of the data.
    """

    step: Step

    def __init__(
        self, training: Training, chunk_size: int | None, compiled: dict[tuple[Any, int], CompiledGradients] | None
    ) -> None:
        self.training, self.chunk_size, self.compiled = training, chunk_size, compiled
        self.fit, self.pausable = training.fit, training.pausable
        self.kinds = kinds_of(training.criteria.values())
        self.stochastic = False
        self.chunks: list[Chunk] = []
        self._names: list[list[str]] = []  # the parameters of each group of the optimizer
        self._sizes: list[int] = []  # of the chunks, before members were let go
        self._resumed, training.resumed = training.resumed, None
        self._optimizer: Any = None

    def weights(self, member: int) -> dict[str, Tensor]:
        """Return parameters and buffers of one member."""
        frozen = {name: p.detach() for name, p in self.step.module.named_parameters() if not p.requires_grad}
        weights = frozen | next(chunk for chunk in self.chunks if member in chunk.members).weights(member)
        if len(self.kinds) == 1:
            return weights
        return own_weights(weights, self.fit.slots, self.kinds.index(self.training.criteria[member].shape))

    def keep(self, members: set[int]) -> None:
        """Take the other members out of the stacks, and out of the optimizer's state."""
        for chunk in self.chunks:
            chunk.keep([member for member in chunk.members if member in members], self._optimizer.state)
        self.chunks = [chunk for chunk in self.chunks if chunk.members]
        if len(self.kinds) > 1:
            needed = {self.kinds.index(self.training.criteria[member].shape) for member in members}
            for slot in self.fit.slots:
                slot.get(self.step.module).needed = tuple(sorted(needed))
        for group, names in zip(self._optimizer.param_groups, self._names, strict=True):
            group["params"] = [chunk.params[name] for name in names for chunk in self.chunks]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Train the population in place of the one network."""
        check_static(trainer, pl_module, [callback for callback in trainer.callbacks if callback is not self])
        with silenced(pl_module), flushed(), ExitStack() as self._passes:
            pl_module.on_train_start()
            self._train(trainer, pl_module)
        trainer.should_stop = True

    def _train(self, trainer: Any, module: Any) -> None:
        loop = trainer.fit_loop
        self.step = Step(module)
        self._randomness = ComputeRandomness(trainer.strategy.root_device)
        ours = [slot.get(module) for slot in self.fit.slots]
        memory = Memory(trainer, module, ours) if self.fit.notes else None
        if self._resumed is not None:
            set_progress(trainer, **self._resumed["progress"])
        while not self._done(trainer):
            epoch = trainer.current_epoch
            if self._resumed is None:
                rest = {"sizes": self._sizes, "members": self._members, "drawn": self._randomness.inside}
                self.training.note(trainer, memory, lambda: self._tensors, **rest)
            if self.fit.budget.steps is None and epoch >= self.training.until:
                self._pause(trainer)
            loop.setup_data()
            for loader in loop._combined_loader.flattened:
                for sampler in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
                    if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                        set_epoch(epoch)
            # As `Guard` does
            own = generators(module, trainer.train_dataloader)
            seed_all(derived_seed(self.training.seed, epoch), [*self.fit.generators, *own])
            if epoch > 0:
                # The loop made the first iterator itself
                iter(loop._data_fetcher)
            self._train_epoch(trainer, module)
            loop.epoch_progress.current.processed = loop.epoch_progress.current.completed = epoch + 1
            self._schedule(trainer, "epoch", epoch + 1)

    @property
    def _members(self) -> list[int]:
        return [member for chunk in self.chunks for member in chunk.members]

    @property
    def _tensors(self) -> dict[str, Tensor]:
        """The stacks of all chunks."""
        stacks = [chunk.params | chunk.buffers for chunk in self.chunks]
        return {f"{i}.{name}": value.detach() for i, named in enumerate(stacks) for name, value in named.items()}

    def _resume(self, trainer: Any, state: dict[str, Any]) -> None:
        """Go on as another process noted."""
        self.training.keep(set(state["members"]))
        load_training(trainer, state, self._tensors)
        self._randomness.inside = state["drawn"]
        self.training.keep(state.get("kept", set(state["members"])))

    def _done(self, trainer: Any) -> bool:
        return 0 <= trainer.max_steps <= trainer.global_step or 0 <= (trainer.max_epochs or -1) <= trainer.current_epoch

    def _pause(self, trainer: Any) -> None:
        self.stochastic = self._randomness.stochastic
        if not self._done(trainer):
            self.pausable.pause()

    def _train_epoch(self, trainer: Any, module: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        fetcher = trainer.fit_loop._data_fetcher
        plugin = trainer.precision_plugin
        every = trainer.accumulate_grad_batches
        transfers = transfers_batches(trainer, module)
        takes_index = len(loop._build_kwargs(OrderedDict(), None, 0)) > 1
        # Not `for`, which would ask the fetcher for a new iterator
        while not fetcher.done:
            batch, batch_idx, _ = next(fetcher)
            batch = plugin.convert_input(batch)
            if transfers:
                batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            loop.batch_progress.current.ready = batch_idx + 1
            loop.batch_progress.is_last_batch = fetcher.done
            arguments = (batch, batch_idx) if takes_index else (batch,)
            if not self.chunks:
                self._stack(arguments, trainer)
            if self._resumed is not None:
                self._resume(trainer, self._resumed)
                self._resumed = None
            with self._randomness():
                for chunk in alike(self.chunks, self._randomness):
                    chunk.backward(arguments, 1 / every, plugin.train_step_context)
            self.training.clock.check()
            self.pausable.check()
            if (batch_idx + 1) % every == 0 or fetcher.done:
                self._step(trainer)
                steps.completed += 1
                self._schedule(trainer, "step", batch_idx + 1)
                if self.fit.budget.steps is not None and trainer.global_step >= self.training.until:
                    self._pause(trainer)
            if 0 <= trainer.max_steps <= steps.completed:
                break

    def _step(self, trainer: Any) -> None:
        """One step of the optimizer for every member, each at its own rate."""
        self._clip(trainer)
        names = [name for group in self._names for name in group]
        scaled = [
            (chunk.factor, stack, stack.detach().clone())
            for chunk in self.chunks
            if chunk.factor is not None
            for stack in (chunk.params[name] for name in names)
        ]
        self._optimizer.step()
        # The update is linear in the rate, weight decay included
        for factor, stack, old in scaled:
            weight = factor.view(-1, *[1] * (stack.dim() - 1)) if factor.dim() else factor
            stack.data = torch.lerp(old, stack.detach(), weight.to(stack.dtype))
        for chunk in self.chunks:
            for stack in chunk.params.values():
                stack.grad = None

    def _stack(self, arguments: tuple[Any, ...], trainer: Any) -> None:
        """Stack the candidates, in chunks that fit into the memory, once the first batch shows what one takes."""
        keep_heap()
        saved = rehearse(self.step, arguments, trainer)
        # What is saved for backward, and as much again for the gradients on the way, in half of what is free
        affordable = available_memory(trainer.strategy.root_device) // 4 // max(1, saved)
        criteria = self.training.criteria
        size = self.chunk_size or max(1, min(len(criteria), affordable))
        sizes = [min(size, len(criteria) - start) for start in range(0, len(criteria), size)]
        self._sizes = sizes if self._resumed is None else self._resumed["sizes"]
        rates = [(member, criterion.step) for member, criterion in criteria.items()]
        rows = self._loss_parameters(self.step.module, list(criteria.values()))
        for size, end in zip(self._sizes, accumulate(self._sizes), strict=True):
            own = slice(end - size, end)
            buffers = {name: stack[own] for name, stack in rows.items()}
            self.chunks.append(Chunk(self.step, dict(rates[own]), buffers))
        if self.compiled is not None:
            self._compile(self.compiled)
        self._adopt(trainer.optimizers[0])

    def _compile(self, compiled: dict[tuple[Any, int], CompiledGradients]) -> None:
        """Give the chunks the compiled pass of their size."""
        kinds = tuple(self.kinds)
        for size in {chunk.size for chunk in self.chunks}:
            if (kinds, size) not in compiled:
                compiled[kinds, size] = CompiledGradients(size)
            self._passes.enter_context(compiled[kinds, size].of(self.step))
        for chunk in self.chunks:
            chunk.compiled = compiled[kinds, chunk.size]

    def _loss_parameters(self, module: Any, criteria: list[Criterion]) -> dict[str, Tensor]:
        """The buffers in which the candidates differ, one row a member."""
        if len(self.kinds) > 1:
            return mixed_rows(module, self.fit.slots, criteria, self.kinds)
        return {
            f"{slot.path}.theta": slot.get(module).theta.new_tensor([list(c.losses[at].theta) for c in criteria])
            for at, slot in enumerate(self.fit.slots)
            if criteria[0].losses
        }

    def _adopt(self, optimizer: Any) -> None:
        """Let the module's own optimizer, its groups and schedules as they are, step the stacked parameters."""
        self._optimizer = optimizer
        names = {id(parameter): name for name, parameter in self.step.params.items()}
        for group in optimizer.param_groups:
            own = [p for p in group["params"] if id(p) in names]
            for parameter in own:
                # Some optimizers make their state when they are made
                state = optimizer.state.pop(parameter, {})
                for chunk in self.chunks if state else ():
                    optimizer.state[chunk.params[names[id(parameter)]]] = {
                        key: chunk.stack(value) if isinstance(value, Tensor) and key != "step" else value
                        for key, value in copy.deepcopy(state).items()
                    }
            self._names.append([names[id(p)] for p in own])
            group["params"] = [chunk.params[names[id(p)]] for p in own for chunk in self.chunks]
            if type(optimizer) in FUSED and group.get("fused") is None and group.get("foreach") is None:
                group["fused"] = all(p.device.type in ("cpu", "cuda") for p in group["params"])

    def _clip(self, trainer: Any) -> None:
        """What ``Trainer(gradient_clip_val=...)`` does, for each candidate by itself."""
        limit = trainer.gradient_clip_val
        if not limit:
            return
        names = [name for group in self._names for name in group]
        for chunk in self.chunks:
            grads = chunk.gradients(names)
            if trainer.gradient_clip_algorithm == "value":
                for grad in grads:
                    grad.clamp_(-limit, limit)
                continue
            norms = torch.stack([grad.reshape(len(grad), -1).norm(dim=1) for grad in grads]).norm(dim=0)
            scale = (limit / (norms + 1e-6)).clamp(max=1.0)
            for grad in grads:
                grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))

    @staticmethod
    def _schedule(trainer: Any, interval: str, count: int) -> None:
        for config in trainer.lr_scheduler_configs:
            if config.interval == interval and count % config.frequency == 0:
                config.scheduler.step()
