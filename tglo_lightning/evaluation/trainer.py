"""Score candidates with nested Trainers: the reference, valid for whatever Lightning can train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from tglo_lightning.evaluation.bases import Callback
from tglo_lightning.evaluation.inner import Budget, InnerFit
from tglo_lightning.evaluation.isolation import generators, isolated, preserved, random_states, seed_all
from tglo_lightning.evaluation.limits import Clock, Hopeless, TimedOut
from tglo_lightning.search import Evaluation

__all__ = ["TrainerEvaluator"]


class Diverged(Exception):
    """A loss or a weight is no longer finite."""


# Endings that have a name
STATUS = {Diverged: "diverged", TimedOut: "timeout", Hopeless: "hopeless"}


def failed(error: Exception, seconds: float) -> Evaluation:
    """The evaluation of a candidate whose training ended with ``error``."""
    status = next((name for kind, name in STATUS.items() if isinstance(error, kind)), "crashed")
    said = str(error) if status != "crashed" else f"{type(error).__name__}: {error}"
    return Evaluation(math.nan, status, seconds, said)


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of one epoch, so that candidates meet the same batches however many random numbers each has drawn."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def validated(trainer: Any, module: Any, fit: InnerFit) -> dict[str, Any]:
    """The metrics of a training, and of a validation after it if there is one."""
    metrics = dict(trainer.callback_metrics)
    if trainer.enable_validation:
        trainer.validate(module, **fit.data(validate=True), verbose=False)
        metrics |= trainer.callback_metrics
    return metrics


class Guard(Callback):
    """Seeds every epoch, and ends a training that cannot come to anything.

    Args:
        seed: seed of the training.
        fit: what is trained.
        budget: how long, and within which limits; none by default.
        clock: measures the time; by default there is no limit.
    """

    EVERY = 16

    def __init__(self, seed: int, fit: InnerFit, budget: Budget | None = None, clock: Clock | None = None) -> None:
        self.seed = seed
        self.fit = fit
        self.budget = budget
        self.clock = Clock(None) if clock is None else clock
        # Whether the training is at the point where it must have reached something, and whether that is behind it
        self.due = self.checked = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.budget is not None and self.budget.minimum is not None:
            # Lightning then validates at that point, as it would by its own settings
            loop = trainer.fit_loop.epoch_loop
            usual = loop._should_check_val_fx
            loop._should_check_val_fx = lambda fetcher: self.due or usual(fetcher)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        # The copy of the module, and loaders that were made for this fit, have generators of their own
        seed_all(epoch_seed(self.seed, trainer.current_epoch), self._generators(trainer, pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.clock.check()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Looking at every loss would wait for the device at every step
        if batch_idx % self.EVERY == 0 and isinstance(loss, torch.Tensor) and not torch.isfinite(loss).all():
            raise Diverged(f"the loss is {loss.detach().mean().item()} at step {trainer.global_step}")
        minimum = None if self.budget is None or self.checked else self.budget.minimum
        if minimum is not None and self.budget is not None:
            steps, last = trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            at_end = last and trainer.current_epoch + 1 == minimum.after
            self.due = at_end if self.budget.steps is None else steps >= minimum.after
            if self.due and not trainer.enable_validation and self.budget.steps is not None:
                self._check(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if self.due:
            # A validation in between must not change the random numbers of what follows
            self._states = ExitStack()
            self._states.enter_context(random_states())
            self._states.enter_context(preserved(self._generators(trainer, pl_module)))

    def on_validation_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.check()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self.due:
            self._states.close()
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.due:
            self._check(trainer)

    def _check(self, trainer: Any) -> None:
        self.due, self.checked = False, True
        budget, monitor = self.budget, self.fit.monitor
        if budget is None or budget.minimum is None or monitor not in trainer.callback_metrics:
            return
        fitness = float(trainer.callback_metrics[monitor])
        if budget.minimum.missed_by(fitness):
            raise Hopeless(budget, fitness, monitor)

    def _generators(self, trainer: Any, module: Any) -> list[Any]:
        return [*self.fit.generators, *generators(module, trainer.train_dataloader)]


class TrainerEvaluator:
    """Trains each candidate with a fresh Trainer on a fresh copy of the module, one after the other.

    Before each training every random generator is seeded with the same number, and again at each epoch, so candidates
    share initial weights, batches, augmentation and dropout.
    """

    name = "trainer"
    fit: InnerFit

    def setup(self, fit: InnerFit) -> None:
        """Take on a search."""
        self.fit = fit

    def close(self) -> None:
        """Let go of what the search held."""
        vars(self).pop("fit", None)

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order; ``None`` trains with the module's own loss."""
        for theta in thetas:
            yield self._evaluate(theta, seed)

    def _evaluate(self, theta: list[float] | None, seed: int) -> Evaluation:
        clock = Clock(self.fit.limited(theta).timeout)
        try:
            return Evaluation(self._score(theta, seed, clock), "ok", clock.seconds)
        except Exception as error:
            return failed(error, clock.seconds)

    def _score(self, theta: list[float] | None, seed: int, clock: Clock) -> float:
        fit = self.fit
        with isolated(), preserved(fit.generators):
            trainer, module = self._train(theta, seed, fit.limited(theta), clock)
            if not all(torch.isfinite(parameter).all() for parameter in module.parameters()):
                raise Diverged("a weight is not finite after the training")
            metrics = validated(trainer, module, fit)
        if fit.monitor not in metrics:
            raise KeyError(f"{fit.monitor!r} was not logged")
        return float(metrics[fit.monitor])

    def _train(
        self, theta: list[float] | None, seed: int, budget: Budget | None = None, clock: Clock | None = None
    ) -> tuple[Any, Any]:
        module = self.fit.candidate(theta, seed)
        trainer = self.fit.trainer(Guard(seed, self.fit, budget, clock))
        seed_all(seed, self.fit.generators)
        trainer.fit(module, **self.fit.data())
        return trainer, module

    def train(self, theta: list[float] | None, seed: int) -> nn.Module:
        """The module that results from training with ``theta`` from ``seed``, without validation."""
        with isolated(), preserved(self.fit.generators):
            module: nn.Module = self._train(theta, seed)[1]
        return module
