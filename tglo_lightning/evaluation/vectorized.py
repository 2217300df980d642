"""Score a whole population in one pass: stacked parameters under ``torch.func.vmap``."""

from __future__ import annotations

import copy
import gc
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.arguments import integer, optional
from tglo_lightning.evaluation.bases import Callback
from tglo_lightning.evaluation.compilation import CompiledGradients
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import generators, isolated, preserved, seed_all
from tglo_lightning.evaluation.limits import Clock, Hopeless, TimedOut, out_of_memory
from tglo_lightning.evaluation.stack import (
    Chunk,
    ComputeRandomness,
    Step,
    alike,
    available_memory,
    flushed,
    keep_heap,
    rehearse,
)
from tglo_lightning.evaluation.trainer import TrainerEvaluator, epoch_seed, failed
from tglo_lightning.evaluation.validation import validate_each
from tglo_lightning.evaluation.vectorizable import NotVectorizable, check_static, silenced, transfers_batches
from tglo_lightning.search import Evaluation
from tglo_lightning.search.space import split_theta

__all__ = ["NotVectorizable", "VectorizedEvaluator"]

# One kernel for the whole step, unless the user chose otherwise
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


class VectorizedEvaluator:
    """Trains all candidates at once, each batch loaded, moved and augmented once.

    The parameters and buffers of the candidates are stacked, and ``training_step`` is mapped over the stack by
    :func:`torch.func.vmap`; ``theta`` is a buffer like any other. Optimizer, parameter groups, schedulers, gradient
    clipping and accumulation are those of the module and the outer Trainer; one elementwise optimizer step over the
    stack is one step for each candidate. An inner Trainer sets everything up, as for :class:`TrainerEvaluator`, and
    validates each candidate, so the fitness is the same up to float tolerance.

    Args:
        chunk_size: candidates in one pass; bounds the memory. By default what fits into half of the available memory.
        compile: compile the pass with :func:`torch.compile`, which takes some seconds at the first population; where
            that fails, a warning says so and the search goes on without.

    Raises:
        TypeError, ValueError: a wrong ``chunk_size``.
        NotVectorizable: by :meth:`evaluate`, what the module does that cannot be mapped.
    """

    fit: InnerFit

    def __init__(self, *, chunk_size: int | None = None, compile: bool = False) -> None:
        self.chunk_size = optional(integer, "chunk_size", chunk_size, 1)
        self.compile = compile
        self.stochastic = False
        self._compiled: dict[tuple[bool, int], CompiledGradients] = {}

    @property
    def name(self) -> str:
        """``"vectorized"``, or ``"sequential"`` for a chunk size of 1: without Trainers, but one by one."""
        return "sequential" if self.chunk_size == 1 else "vectorized"

    @property
    def together(self) -> bool:
        """Whether candidates share passes, so that the last bits of a result depend on who trains beside it."""
        return self.chunk_size != 1

    def setup(self, fit: InnerFit) -> None:
        """Take on a search."""
        self.fit = fit
        self._compiled = {}

    def close(self) -> None:
        """Let go of what the search held."""
        self._compiled = {}
        vars(self).pop("fit", None)

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order; losses other than TaylorGLO train beside, one by one."""
        given = [theta for theta in thetas if theta is not None]
        scored = iter(self._evaluate(given, seed) if given else [])
        for theta in thetas:
            yield next(scored) if theta is not None else self._original(seed)

    def _original(self, seed: int) -> Evaluation:
        try:
            return self._evaluate([None], seed)[0]
        except NotVectorizable:
            # A loss of the user's may do what ours do not; a Trainer makes the same of it
            reference = TrainerEvaluator()
            reference.setup(self.fit)
            return next(iter(reference.evaluate([None], seed)))

    def train_population(self, thetas: Sequence[list[float] | None], seed: int) -> list[dict[str, Tensor]]:
        """Weights and buffers of each candidate after its training, by name."""
        with isolated(), preserved(self.fit.generators):
            _, _, population = self._train(thetas, seed)
        return [population.weights(index) for index in range(len(thetas))]

    def _evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> list[Evaluation]:
        """Score a population; should that fail midway, its candidates are scored one by one."""
        try:
            return self._score(thetas, seed)
        except NotVectorizable:
            raise
        except TimedOut as error:
            return [failed(error, self.fit.budget.timeout or 0.0) for _ in thetas]
        except Exception as error:
            if self.compile:
                warnings.warn(f"Going on uncompiled: {type(error).__name__}: {error}", stacklevel=2)
                self.compile = False
                return self._evaluate(thetas, seed)
            warnings.warn(
                f"Training a population of {len(thetas)} failed with {type(error).__name__}: {error}. Its candidates "
                "are trained by nested Trainers.",
                stacklevel=2,
            )
        reference = TrainerEvaluator()
        reference.setup(self.fit)
        return list(reference.evaluate(thetas, seed))

    def _score(self, thetas: Sequence[list[float] | None], seed: int) -> list[Evaluation]:
        minimum = self.fit.limited(thetas[0]).minimum
        if minimum is None:
            return self._passed(thetas, seed)
        # Those that are good enough start again
        evaluations = self._passed(thetas, seed, until=minimum.after)
        for index, early in enumerate(evaluations):
            if early.ok and minimum.missed_by(early.fitness):
                error = Hopeless(self.fit.budget, early.fitness, self.fit.monitor)
                evaluations[index] = failed(error, early.seconds)
        going_on = [index for index, early in enumerate(evaluations) if early.ok]
        used = evaluations[0].seconds
        late = self._passed([thetas[index] for index in going_on], seed, used=used) if going_on else []
        for index, evaluation in zip(going_on, late, strict=True):
            seconds = evaluations[index].seconds + evaluation.seconds
            evaluations[index] = replace(evaluation, seconds=seconds)
        return evaluations

    def _passed(
        self, thetas: Sequence[list[float] | None], seed: int, until: int | None = None, used: float = 0.0
    ) -> list[Evaluation]:
        """Train a population in one pass, or the first epochs or steps ``until`` a number of them, and validate it.

        ``used`` seconds of each candidate's time are over already.
        """
        timeout = self.fit.limited(thetas[0]).timeout
        clock = Clock(None if timeout is None else timeout - used, len(thetas))
        with isolated(), preserved(self.fit.generators):
            trainer, module, population = self._train(thetas, seed, until, clock)

            def load(index: int) -> bool:
                clock.check()
                weights = population.weights(index)
                module.load_state_dict(weights, strict=False)
                return all(bool(torch.isfinite(weights[name]).all()) for name in population.step.params)

            results = validate_each(trainer, module, self.fit, len(thetas), load)
        seconds = clock.seconds
        evaluations = []
        for result in results:
            if result is None:
                error = "a weight is not finite after the training"
                evaluations.append(Evaluation(float("nan"), "diverged", seconds, error))
            elif isinstance(result, Exception):
                evaluations.append(failed(result, seconds))
            else:
                evaluations.append(Evaluation(result, "ok", seconds))
        return evaluations

    def _train(
        self, thetas: Sequence[list[float] | None], seed: int, until: int | None = None, clock: Clock | None = None
    ) -> tuple[Any, Any, _Population]:
        fit = self.fit
        while True:
            module = fit.candidate(thetas[0], seed)
            population = _Population(thetas, fit, seed, self.chunk_size, self._compiled if self.compile else None)
            population.until, population.clock = until, clock or Clock(None)
            trainer = fit.trainer(population)
            seed_all(seed, fit.generators)
            try:
                trainer.fit(module, **fit.data())
            except (RuntimeError, MemoryError) as error:
                size = max(chunk.size for chunk in population.chunks) if population.chunks else 1
                if size == 1 or not out_of_memory(error):
                    raise
                # For the whole search: the next population is as large
                self.chunk_size = size // 2
            else:
                self.stochastic = population.stochastic
                return trainer, module, population
            # A Trainer refers to itself, and would hold its population's memory for a while
            del trainer, module, population
            gc.collect()


class _Population(Callback):
    """Takes over a fit once Lightning has set everything up, trains the population, and ends the fit."""

    step: Step

    def __init__(
        self,
        thetas: Sequence[list[float] | None],
        fit: InnerFit,
        seed: int,
        chunk_size: int | None,
        compiled: dict[tuple[bool, int], CompiledGradients] | None = None,
    ) -> None:
        self.thetas = thetas
        self.fit = fit
        self.seed = seed
        self.chunk_size = chunk_size
        self.compiled = compiled
        self.stochastic = False
        self.chunks: list[Chunk] = []
        self.optimized: list[str] = []
        self.until: int | None = None
        self.clock = Clock(None)

    def weights(self, index: int) -> dict[str, Tensor]:
        """Parameters and buffers of one candidate."""
        size = self.chunks[0].size
        return self.chunks[index // size].weights(index % size)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        check_static(trainer, pl_module, [callback for callback in trainer.callbacks if callback is not self])
        with silenced(pl_module), flushed(), ExitStack() as self._passes:
            self._train(trainer, pl_module)
        trainer.should_stop = True

    def _train(self, trainer: Any, module: Any) -> None:
        loop = trainer.fit_loop
        self.step = Step(module)
        randomness = ComputeRandomness(trainer.strategy.root_device)
        while not self._done(trainer):
            epoch = trainer.current_epoch
            loop.setup_data()
            for loader in loop._combined_loader.flattened:
                for sampler in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
                    if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                        set_epoch(epoch)
            # As `Guard` does
            own = generators(module, trainer.train_dataloader)
            seed_all(epoch_seed(self.seed, epoch), [*self.fit.generators, *own])
            if epoch > 0:
                # The loop made the first iterator itself
                iter(loop._data_fetcher)
            self._train_epoch(trainer, module, randomness)
            loop.epoch_progress.current.processed = loop.epoch_progress.current.completed = epoch + 1
            self._schedule(trainer, "epoch", epoch + 1)
        self.stochastic = randomness.stochastic

    def _done(self, trainer: Any) -> bool:
        if self.until is not None and self.until <= (
            trainer.current_epoch if self.fit.budget.steps is None else trainer.global_step
        ):
            return True
        return 0 <= trainer.max_steps <= trainer.global_step or 0 <= (trainer.max_epochs or -1) <= trainer.current_epoch

    def _train_epoch(self, trainer: Any, module: Any, randomness: ComputeRandomness) -> None:
        loop = trainer.fit_loop.epoch_loop
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        fetcher = trainer.fit_loop._data_fetcher
        plugin = trainer.precision_plugin
        optimizer = trainer.optimizers[0]
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
            with randomness():
                for chunk in alike(self.chunks, randomness):
                    chunk.backward(arguments, 1 / every, plugin.train_step_context)
            if (batch_idx + 1) % every == 0 or fetcher.done:
                self._clip(trainer)
                optimizer.step()
                for chunk in self.chunks:
                    chunk.zero_grad()
                steps.completed += 1
                self._schedule(trainer, "step", batch_idx + 1)
            self.clock.check()
            limit = trainer.max_steps if self.until is None or self.fit.budget.steps is None else self.until
            if 0 <= limit <= steps.completed:
                break

    def _stack(self, arguments: tuple[Any, ...], trainer: Any) -> None:
        """Stack the candidates, in chunks that fit into the memory, once the first batch shows what one takes."""
        keep_heap()
        saved = rehearse(self.step, arguments, trainer)
        # What is saved for backward, and as much again for the gradients on the way, in half of what is free
        affordable = available_memory(trainer.strategy.root_device) // 4 // max(1, saved)
        size = self.chunk_size or max(1, min(len(self.thetas), affordable))
        rows = self._rows(self.step.module)
        self.chunks = [
            Chunk(
                self.step,
                min(size, len(self.thetas) - start),
                {name: stack[start : start + size] for name, stack in rows.items()},
            )
            for start in range(0, len(self.thetas), size)
        ]
        if self.compiled is not None:
            self._compile(self.compiled)
        self._adopt(trainer.optimizers[0])

    def _compile(self, compiled: dict[tuple[bool, int], CompiledGradients]) -> None:
        """Give the chunks the compiled pass of their size, for as long as this population trains."""
        used = {}
        for chunk in self.chunks:
            key = self.thetas[0] is None, chunk.size
            if key not in compiled:
                compiled[key] = CompiledGradients(chunk.size)
            chunk.compiled = used[key] = compiled[key]
        for gradients in used.values():
            self._passes.enter_context(gradients.of(self.step))

    def _rows(self, module: Any) -> dict[str, Tensor]:
        """The buffers in which the candidates differ, one row a candidate."""
        rows: dict[str, Tensor] = {}
        thetas = [theta for theta in self.thetas if theta is not None]
        for number, slot in enumerate(self.fit.slots if thetas else ()):
            loss = slot.get(module)
            rows[f"{slot.path}.theta"] = loss.theta.new_tensor(
                [split_theta(theta, len(self.fit.slots))[number] for theta in thetas]
            )
        return rows

    def _adopt(self, optimizer: Any) -> None:
        """Let the module's own optimizer, its groups and schedulers as they are, step the stacked parameters."""
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
            self.optimized += [names[id(p)] for p in own]
            group["params"] = [chunk.params[names[id(p)]] for p in own for chunk in self.chunks]
            if type(optimizer) in FUSED and group.get("fused") is None and group.get("foreach") is None:
                group["fused"] = all(p.device.type in ("cpu", "cuda") for p in group["params"])

    def _clip(self, trainer: Any) -> None:
        """What ``Trainer(gradient_clip_val=...)`` does, for each candidate by itself."""
        limit = trainer.gradient_clip_val
        if not limit:
            return
        for chunk in self.chunks:
            grads = chunk.gradients(self.optimized)
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
