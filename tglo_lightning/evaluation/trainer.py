"""Score candidates with nested Trainers: the reference, valid for whatever Lightning can train."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tglo_lightning.evaluation.bases import Callback
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import generators, isolated, preserved, seed_all
from tglo_lightning.search import Evaluation

__all__ = ["TrainerEvaluator"]


class Diverged(Exception):
    """A loss or a weight is no longer finite."""


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
    """Seeds every epoch, and ends a training whose loss is no longer finite."""

    EVERY = 16

    def __init__(self, seed: int, generators: list[Any]) -> None:
        self.seed = seed
        self.generators = generators

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        # The copy of the module, and loaders that were made for this fit, have generators of their own
        seed_all(
            epoch_seed(self.seed, trainer.current_epoch),
            [*self.generators, *generators(pl_module, trainer.train_dataloader)],
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Looking at every loss would wait for the device at every step
        if batch_idx % self.EVERY == 0 and isinstance(loss, torch.Tensor) and not torch.isfinite(loss).all():
            raise Diverged(f"the loss is {loss.detach().mean().item()} at step {trainer.global_step}")


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

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order; ``None`` trains with the module's own loss."""
        for theta in thetas:
            yield self._evaluate(theta, seed)

    def _evaluate(self, theta: list[float] | None, seed: int) -> Evaluation:
        started = time.perf_counter()
        try:
            fitness, status, error = self._score(theta, seed), "ok", None
        except Diverged as divergence:
            fitness, status, error = float("nan"), "diverged", str(divergence)
        except Exception as crash:
            fitness, status, error = float("nan"), "crashed", f"{type(crash).__name__}: {crash}"
        return Evaluation(fitness, status, time.perf_counter() - started, error)

    def _score(self, theta: list[float] | None, seed: int) -> float:
        fit = self.fit
        with isolated(), preserved(fit.generators):
            trainer, module = self._train(theta, seed)
            if not all(torch.isfinite(parameter).all() for parameter in module.parameters()):
                raise Diverged("a weight is not finite after the training")
            metrics = validated(trainer, module, fit)
        if fit.monitor not in metrics:
            raise KeyError(f"{fit.monitor!r} was not logged")
        return float(metrics[fit.monitor])

    def _train(self, theta: list[float] | None, seed: int) -> tuple[Any, Any]:
        module = self.fit.candidate(theta, seed)
        trainer = self.fit.trainer(Guard(seed, self.fit.generators))
        seed_all(seed, self.fit.generators)
        trainer.fit(module, **self.fit.data())
        return trainer, module

    def train(self, theta: list[float] | None, seed: int) -> nn.Module:
        """The module that results from training with ``theta`` from ``seed``, without validation."""
        with isolated(), preserved(self.fit.generators):
            module: nn.Module = self._train(theta, seed)[1]
        return module
