"""Score candidates with nested Trainers: the reference, valid for whatever Lightning can train."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tglo_lightning.evaluation.bases import Callback
from tglo_lightning.evaluation.initial import Init, fresh_module
from tglo_lightning.evaluation.isolation import fresh_iterators, generators, isolated, preserved, seed_all
from tglo_lightning.evaluation.slot import LossSlot
from tglo_lightning.losses import TaylorGLOLoss, taylorglo_like
from tglo_lightning.search import Evaluation

__all__ = ["Budget", "Probe", "TrainerEvaluator"]

NEVER = 2**31


class Diverged(Exception):
    """A loss or a weight is no longer finite."""


@dataclass(frozen=True)
class Budget:
    """How long a candidate trains: whole epochs, or optimizer steps. Exactly one is given, at least 1."""

    epochs: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("Give one of `candidate_epochs` and `candidate_steps`.")
        for name, value in (("candidate_epochs", self.epochs), ("candidate_steps", self.steps)):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"`{name}` must be an int, got {value!r}.")
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")

    def trainer_kwargs(self) -> dict[str, Any]:
        """The budget as arguments of a Trainer."""
        return {"max_epochs": self.epochs} if self.steps is None else {"max_epochs": -1, "max_steps": self.steps}


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of one epoch, so that candidates meet the same batches however many random numbers each has drawn."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


class _Guard(Callback):
    """Seeds every epoch, and ends a training whose loss is no longer finite."""

    EVERY = 16

    def __init__(self, seed: int, generators: list[torch.Generator]) -> None:
        self.seed = seed
        self.generators = generators

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        seed_all(epoch_seed(self.seed, trainer.current_epoch), self.generators)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Looking at every loss would wait for the device at every step
        if batch_idx % self.EVERY == 0 and isinstance(loss, torch.Tensor) and not torch.isfinite(loss).all():
            raise Diverged(f"the loss is {loss.detach().mean().item()} at step {trainer.global_step}")


@dataclass(frozen=True)
class Probe:
    """What one batch of training and validation shows of a module.

    Attributes:
        num_classes: classes of the logits that reach the loss.
        metrics: names of the metrics that are logged.
    """

    num_classes: int
    metrics: list[str]


class TrainerEvaluator:
    """Trains each candidate with a fresh Trainer on a fresh copy of the module.

    The inner Trainer takes over what changes the training: device, precision, gradient clipping and accumulation,
    limits on batches. It has no logger, no checkpoints, no progress bar, and none of the outer callbacks. Data come
    from where the outer fit takes them; a datamodule is copied shallowly and not set up again, so neither
    ``datamodule.trainer`` nor its splits change. Before each training every random generator is seeded with the same
    number, so candidates share initial weights, batches, augmentation and dropout.

    Args:
        trainer: the outer Trainer, within ``fit``.
        module: the outer module; it is copied, never touched.
        slot: where the module keeps its loss.
        monitor: name of the metric; the validation's value, or the training's if only that exists.
        budget: how long to train.
        init: ``"given"``, ``"reset"`` or a function that builds a module.
        callbacks: callbacks for the inner Trainers, copied for each.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        slot: LossSlot,
        monitor: str,
        budget: Budget,
        init: Init = "given",
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.trainer = trainer
        self.module = module
        self.slot = slot
        self.monitor = monitor
        self.budget = budget
        self.init = init
        self.callbacks = list(callbacks)
        self._loaders = self._outer_loaders()
        self._generators = generators(trainer.datamodule, *self._loaders.values())

    # Evaluation

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order; ``None`` trains with the module's own loss."""
        for theta in thetas:
            started = time.perf_counter()
            try:
                fitness, status, error = self._score(theta, seed), "ok", None
            except Diverged as divergence:
                fitness, status, error = float("nan"), "diverged", str(divergence)
            except Exception as crash:
                fitness, status, error = float("nan"), "crashed", f"{type(crash).__name__}: {crash}"
            yield Evaluation(fitness, status, time.perf_counter() - started, error)

    def _score(self, theta: list[float] | None, seed: int) -> float:
        with isolated(), preserved(self._generators):
            module = self._candidate(theta, seed)
            trainer = self._guarded_trainer(seed)
            metrics = self._train_and_validate(trainer, module, seed)
        if self.monitor not in metrics:
            raise KeyError(f"{self.monitor!r} was not logged")
        return float(metrics[self.monitor])

    def train(self, theta: list[float] | None, seed: int) -> nn.Module:
        """The module that results from training with ``theta`` from ``seed``, without validation."""
        with isolated(), preserved(self._generators):
            module = self._candidate(theta, seed)
            trainer = self._guarded_trainer(seed)
            seed_all(seed, self._generators)
            trainer.fit(module, **self._data())
        return module

    def _candidate(self, theta: list[float] | None, seed: int) -> Any:
        seed_all(seed, self._generators)
        module = fresh_module(self.module, self.init)
        if not callable(self.init):
            # Set up already, with the outer module; a second time might build other layers or other splits
            for hook in ("setup", "prepare_data", "teardown"):
                setattr(module, hook, nothing)
            module.configure_callbacks = _no_callbacks
        if theta is not None:
            self.slot.install(module, theta)
        return module

    def _train_and_validate(self, trainer: Any, module: Any, seed: int) -> dict[str, Any]:
        seed_all(seed, self._generators)
        trainer.fit(module, **self._data())
        if not all(torch.isfinite(parameter).all() for parameter in module.parameters()):
            raise Diverged("a weight is not finite after the training")
        metrics = dict(trainer.callback_metrics)
        trainer.validate(module, **self._data(validate=True), verbose=False)
        return metrics | dict(trainer.callback_metrics)

    # The inner Trainer and its data

    def _guarded_trainer(self, seed: int) -> Any:
        return self._inner_trainer(_Guard(seed, self._generators), **self.budget.trainer_kwargs())

    def _inner_trainer(self, *callbacks: Any, **overrides: Any) -> Any:
        outer = self.trainer
        device = outer.strategy.root_device
        kwargs: dict[str, Any] = {
            "accelerator": device.type if device.type in ("cpu", "cuda", "mps") else "auto",
            "devices": [device.index or 0] if device.type == "cuda" else 1,
            "precision": outer.precision,
            "accumulate_grad_batches": outer.accumulate_grad_batches,
            "gradient_clip_val": outer.gradient_clip_val,
            "gradient_clip_algorithm": outer.gradient_clip_algorithm,
            "limit_train_batches": outer.limit_train_batches,
            "limit_val_batches": outer.limit_val_batches,
            "overfit_batches": outer.overfit_batches,
            "reload_dataloaders_every_n_epochs": outer.reload_dataloaders_every_n_epochs,
            # Validation comes once, at the end, unless a scheduler waits for its metric
            "check_val_every_n_epoch": 1 if self._plateau() else NEVER,
            "default_root_dir": outer.default_root_dir,
            "callbacks": [*callbacks, *copy.deepcopy(self.callbacks)],
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        return type(outer)(**(kwargs | overrides))

    def _plateau(self) -> bool:
        return any(config.reduce_on_plateau for config in self.trainer.lr_scheduler_configs)

    def _outer_loaders(self) -> dict[str, Any]:
        """The loaders that were handed to the outer ``fit``, by the argument's name."""
        loop = self.trainer.fit_loop
        sources = {
            "train_dataloaders": loop._data_source,
            "val_dataloaders": loop.epoch_loop.val_loop._data_source,
        }
        return {name: source.instance for name, source in sources.items() if not source.is_module()}

    def _data(self, validate: bool = False) -> dict[str, Any]:
        if self.trainer.datamodule is not None:
            datamodule = copy.copy(self.trainer.datamodule)
            for hook in ("prepare_data", "setup", "teardown"):
                setattr(datamodule, hook, nothing)
            return {"datamodule": datamodule}
        loaders = {name: fresh_iterators(loader) for name, loader in self._loaders.items()}
        return {"dataloaders": loaders.get("val_dataloaders")} if validate else loaders

    # The probe

    def probe(self) -> Probe:
        """Train and validate one batch on a copy, to find at once what would fail in every candidate.

        Raises:
            ValueError: the loss is not called in ``training_step``, is called with something other than logits and
                class targets, or ``monitor`` is not logged.
        """
        calls: list[tuple[torch.Tensor, torch.Tensor]] = []
        with isolated(), preserved(self._generators):
            module = self._candidate(None, seed=0)
            original = self.slot.get(module)
            self.slot.set(module, _Recorder(original, calls))
            limits = {"limit_train_batches": 1, "limit_val_batches": 1, "overfit_batches": 0.0}
            trainer = self._inner_trainer(max_epochs=1, check_val_every_n_epoch=1, **limits)
            seed_all(0, self._generators)
            trainer.fit(module, **self._data())
        kind = type(self.module).__name__
        if not calls:
            raise ValueError(
                f"`loss={self.slot.path!r}`: {kind}.{self.slot.path} exists, but training_step does not call it. If it "
                f"calls F.cross_entropy, call self.{self.slot.path}(logits, target) instead."
            )
        logits, target = calls[0]
        # Raises with its own message where the loss's arguments do not fit
        taylorglo_like(original, TaylorGLOLoss().theta).to(logits.device)(logits, target)
        metrics = sorted(trainer.callback_metrics)
        if self.monitor not in metrics:
            raise ValueError(
                f"`monitor={self.monitor!r}` is not logged by {kind}; logged: {', '.join(metrics) or 'nothing'}. "
                "Log it in validation_step with self.log, or pass one of these as `monitor=`."
            )
        return Probe(num_classes=logits.shape[min(logits.dim() - 1, 1)], metrics=metrics)


class _Recorder(nn.Module):
    """Stands in for a loss and notes what it is called with while gradients are on."""

    def __init__(self, loss: Any, calls: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        super().__init__()
        self.loss = loss
        self.calls = calls

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss."""
        if torch.is_grad_enabled():
            logits, target, *_ = (*args, *kwargs.values())
            self.calls.append((logits.detach(), target.detach()))
        return self.loss(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("loss"), name)


def nothing(*args: Any, **kwargs: Any) -> None:
    """A hook that was called before."""


def _no_callbacks() -> list[Any]:
    return []
