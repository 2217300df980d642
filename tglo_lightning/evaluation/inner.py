"""The inner fit: what every candidate's training has in common, taken over from the outer one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils.data import DataLoader

from tglo_lightning.arguments import integer, number, optional
from tglo_lightning.evaluation.initial import Init, fresh_module, replicate
from tglo_lightning.evaluation.isolation import fresh_iterators, generators, nothing, seed_all
from tglo_lightning.evaluation.slot import LossSlot, LossSlots

__all__ = ["Budget", "InnerFit", "Minimum"]

NEVER = 2**31


@dataclass(frozen=True)
class Minimum:
    """What a candidate must have reached after a part of its training, or it is given up.

    Attributes:
        after: epochs or optimizer steps, whichever the budget counts.
        value: the worst value of the monitored metric that is good enough.
        mode: ``"max"`` or ``"min"``, what is better.
    """

    after: int
    value: float
    mode: str = "max"

    def missed_by(self, fitness: float) -> bool:
        """Whether ``fitness`` is not good enough; NaN never is."""
        return not (fitness >= self.value if self.mode == "max" else fitness <= self.value)


@dataclass(frozen=True)
class Budget:
    """How long a candidate trains: whole epochs, or optimizer steps. Exactly one is given, at least 1.

    Attributes:
        epochs: epochs.
        steps: optimizer steps.
        timeout: seconds of wall-clock time, validation included, after which a candidate is given up.
        minimum: what it must have reached before the end. The original loss has neither of the two limits.
    """

    epochs: int | None = None
    steps: int | None = None
    timeout: float | None = None
    minimum: Minimum | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("Give one of `candidate_epochs` and `candidate_steps`.")
        # Plain numbers, which a journal can hold
        for name in ("epochs", "steps"):
            object.__setattr__(self, name, optional(integer, f"candidate_{name}", getattr(self, name), 1))
        object.__setattr__(self, "timeout", optional(number, "candidate_timeout", self.timeout, above=0))
        if self.minimum is None:
            return
        after = integer("min_fitness_after[0]", self.minimum.after)
        value = number("min_fitness_after[1]", self.minimum.value)
        length = self.epochs or self.steps or 0
        if not 1 <= after < length:
            raise ValueError(
                f"`min_fitness_after` must begin with a number from 1 to {length - 1}, a part of the {length} "
                f"{self.unit} of a candidate, got {after}."
            )
        object.__setattr__(self, "minimum", replace(self.minimum, after=after, value=value))

    def unlimited(self) -> Budget:
        """The same length without limits."""
        return Budget(self.epochs, self.steps)

    @property
    def unit(self) -> str:
        """``"epochs"`` or ``"steps"``."""
        return "steps" if self.epochs is None else "epochs"


class InnerFit:
    """How a candidate is trained: which Trainer, module, data and loss, for how long.

    The inner Trainer takes over what changes the training: device, precision, gradient clipping and accumulation,
    limits on batches. It has loggers that discard all, no checkpoints, no progress bar, and none of the outer
    callbacks. Data come from where the outer fit takes them; a datamodule is copied shallowly and not set up again, so
    neither ``datamodule.trainer`` nor its splits change. The outer Trainer is not kept, so that this can be sent to
    another process.

    Args:
        trainer: the outer Trainer, within ``fit``.
        module: the outer module; it is copied, never touched.
        slots: where the module keeps the loss, or the losses, to search for.
        monitor: name of the metric; the validation's value, or the training's if only that exists.
        budget: how long to train.
        init: ``"given"``, ``"reset"`` or a function that builds a module.
        callbacks: callbacks for the inner Trainers, copied for each.

    Attributes:
        epoch_batches: training batches of an epoch, infinite while unknown; the probe finds it out.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        slots: LossSlots | LossSlot,
        monitor: str,
        budget: Budget,
        init: Init = "given",
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.module = module
        self.slots = LossSlots(slots.path) if isinstance(slots, LossSlot) else slots
        self.monitor = monitor
        self.budget = budget
        self.init = init
        self.callbacks = list(callbacks)
        self.loaders = _loaders(trainer)
        self.datamodule = _detached(trainer.datamodule)
        self.device = trainer.strategy.root_device
        self.epoch_batches = math.inf
        self.max_epochs: int = trainer.max_epochs
        self._trainer_class = type(trainer)
        self._trainer_kwargs = _trainer_kwargs(trainer)

    def with_budget(self, budget: Budget) -> InnerFit:
        """The same fit, for longer or shorter."""
        twin = copy.copy(self)
        twin.budget = budget
        return twin

    def on_device(self, device: torch.device) -> InnerFit:
        """The same fit on another GPU; the module waits on the CPU until its Trainer moves it."""
        twin = copy.copy(self)
        twin.module = replicate(self.module).cpu()
        twin.device = device
        twin._trainer_kwargs = self._trainer_kwargs | {"devices": [device.index or 0]}
        return twin

    def limited(self, theta: list[float] | None) -> Budget:
        """The budget of a candidate; the original loss, ``None``, has no limits."""
        return self.budget.unlimited() if theta is None else self.budget

    @property
    def validates(self) -> bool:
        """Whether the outer Trainer validates at all."""
        return bool(self._trainer_kwargs["limit_val_batches"])

    @property
    def training(self) -> dict[str, Any]:
        """What of the Trainer's arguments changes a training."""
        left_out = (
            "default_root_dir",
            "logger",
            "devices",
            "plugins",
            *(k for k in self._trainer_kwargs if k.startswith("enable")),
        )
        kept = {name: value for name, value in self._trainer_kwargs.items() if name not in left_out}
        return {"class": f"{self._trainer_class.__module__}.{self._trainer_class.__qualname__}", **kept}

    @property
    def generators(self) -> list[Any]:
        """Random generators of its own that the data draw from."""
        return generators(self.datamodule, *self.loaders.values())

    def candidate(self, theta: list[float] | None, seed: int) -> Any:
        """A module to train, its weights drawn from ``seed`` unless given; ``None`` keeps the module's own loss."""
        seed_all(seed, self.generators)
        module = fresh_module(self.module, self.init)
        if not callable(self.init):
            # Set up already, with the outer module; a second time might build other layers or other splits
            for hook in ("setup", "prepare_data", "teardown"):
                setattr(module, hook, nothing)
        module.configure_callbacks = _no_callbacks
        if theta is not None:
            self.slots.install(module, theta)
        return module

    def trainer(self, *callbacks: Any, **overrides: Any) -> Any:
        """A fresh Trainer for the budget, with ``callbacks`` before the user's; ``overrides`` win."""
        kwargs = self._trainer_kwargs | self._limits()
        kwargs["callbacks"] = [*callbacks, *copy.deepcopy(self.callbacks)]
        return self._trainer_class(**(kwargs | overrides))

    def epoch_steps(self) -> int:
        """Optimizer steps of one epoch, 1 if unknown."""
        steps = self.epoch_batches / self._trainer_kwargs["accumulate_grad_batches"]
        return math.ceil(steps) if math.isfinite(steps) else 1

    def _limits(self) -> dict[str, Any]:
        """The budget as arguments of a Trainer."""
        if self.budget.steps is None:
            return {"max_epochs": self.budget.epochs}
        # Schedules ask the Trainer for its epochs
        known = math.isfinite(self.epoch_batches)
        epochs = math.ceil(self.budget.steps / self.epoch_steps()) if known else -1
        return {"max_epochs": epochs, "max_steps": self.budget.steps}

    def data(self, validate: bool = False) -> dict[str, Any]:
        """The data as arguments of ``Trainer.fit``, or of ``Trainer.validate``."""
        if self.datamodule is not None:
            return {"datamodule": _detached(self.datamodule)}
        loaders = {name: fresh_iterators(loader) for name, loader in self.loaders.items()}
        return {"dataloaders": loaders.get("val_dataloaders")} if validate else loaders


def _trainer_kwargs(outer: Any) -> dict[str, Any]:
    device = outer.strategy.root_device
    plateau = any(config.reduce_on_plateau for config in outer.lr_scheduler_configs)
    return {
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
        "check_val_every_n_epoch": 1 if plateau else NEVER,
        "default_root_dir": outer.default_root_dir,
        # As with `fast_dev_run`: code that uses `self.logger` runs, and leaves nothing
        "logger": [DummyLogger() for _ in outer.loggers] or False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "inference_mode": outer.validate_loop.inference_mode,
        **_alone(outer),
    }


def _alone(outer: Any) -> dict[str, Any]:
    """What keeps a Trainer on one device from looking for the ranks that the outer one has."""
    if outer.world_size == 1:
        return {}
    # "pytorch_lightning" or "lightning.pytorch", also for a class derived from the Trainer
    root = next(base.__module__ for base in type(outer).__mro__ if base.__module__.endswith(".trainer.trainer"))
    environments = import_module(root.replace(".trainer.trainer", ".plugins.environments"))
    return {"plugins": environments.LightningEnvironment()}


def data_arguments(trainer: Any) -> list[str]:
    """Names of the arguments that handed the data to the outer ``fit``; none where the module has its own."""
    return list(_loaders(trainer)) if trainer.datamodule is None else ["datamodule"]


def _loaders(trainer: Any) -> dict[str, Any]:
    """The loaders that were handed to the outer ``fit``, by the argument's name."""
    loop = trainer.fit_loop
    sources = {
        "train_dataloaders": loop._data_source,
        "val_dataloaders": loop.epoch_loop.val_loop._data_source,
    }
    return {name: source.instance for name, source in sources.items() if not source.is_module()}


def _detached(datamodule: Any) -> Any:
    """A shallow copy that belongs to no Trainer and counts as set up."""
    if datamodule is None:
        return None
    twin = copy.copy(datamodule)
    twin.trainer = None
    for hook in ("prepare_data", "setup", "teardown"):
        setattr(twin, hook, nothing)
    for name, value in list(vars(twin).items()):
        if isinstance(value, DataLoader):
            setattr(twin, name, fresh_iterators(value))
    return twin


def _no_callbacks() -> list[Any]:
    return []
