"""The inner fit: what every candidate's training has in common, taken over from the outer one."""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils.data import DataLoader

from tglo_lightning.module import LossSlots
from tglo_lightning.module.copies import Init, fresh_module, leave_ranks, replicate
from tglo_lightning.module.loaders import fresh_iterators, generators, nothing, with_fresh_iterators
from tglo_lightning.search import Budget, Criterion
from tglo_lightning.search.rate import scale_built, scaled_rates
from tglo_lightning.search.seeding import seed_all

__all__ = ["InnerFit", "rebuild_optimizers", "scale_optimizers", "set_step"]

NEVER = 2**31


class InnerFit:
    """How a candidate is trained: which Trainer, module, data and loss, for how long.

    The inner Trainer takes over what changes the training: device, precision, gradient clipping and accumulation,
    limits on batches. It discards logs, writes no checkpoints and has none of the outer callbacks. A datamodule is
    copied shallowly and not set up again, so neither ``datamodule.trainer`` nor its splits change. The outer Trainer is
    not kept, so that this can be sent to another process.

    Args:
        trainer: the outer Trainer, within ``fit``.
        module: the outer module; it is copied, never touched.
        slots: places of the losses to search for; none if the probe is to find them.
        monitor: name of the metric; the validation's value, or the training's if only that exists.
        budget: how long to train; its callbacks go to the inner Trainers, copied for each.
        init: ``"module"``, ``"reset"`` or a function that builds a module.

    Attributes:
        epoch_batches: training batches of an epoch, infinite while unknown; the probe finds it out.
        kind: kind of the losses' targets; the probe finds it out.
        notes: whether trainings note what they are made of at the start of epochs, for another process to go on.
    """

    def __init__(
        self, trainer: Any, module: Any, slots: LossSlots, monitor: str, budget: Budget, init: Init = "module"
    ) -> None:
        self.module = module
        self.slots, self.monitor, self.budget, self.init = slots, monitor, budget, init
        self.callbacks = list(budget.callbacks)
        self.loaders = _loaders(trainer)
        self.datamodule = _detached(trainer.datamodule)
        self.device = trainer.strategy.root_device
        self.epoch_batches = math.inf
        self.kind = "classes"
        self.notes = False
        self.max_epochs: int = trainer.max_epochs
        self._trainer_class = type(trainer)
        self._trainer_kwargs = _trainer_kwargs(trainer)

    def with_budget(self, budget: Budget) -> InnerFit:
        """The same fit, for longer or shorter."""
        twin = copy.copy(self)
        twin.budget = budget
        return twin

    def noting(self) -> InnerFit:
        """The same fit, whose trainings take notes, unless callbacks or loaders have a state of their own."""
        twin = copy.copy(self)
        twin.notes = not self.callbacks and not self._trainer_kwargs["reload_dataloaders_every_n_epochs"]
        return twin

    def on_gpu(self, index: int) -> InnerFit:
        """The same fit, if it is on a GPU on this one; the module waits on the CPU until its Trainer moves it."""
        if self.device.type != "cuda":
            return self
        twin = copy.copy(self)
        twin.module = replicate(self.module).cpu()
        twin.device = torch.device("cuda", index)
        twin._trainer_kwargs = self._trainer_kwargs | {"devices": [index]}
        return twin

    def timeout(self, criterion: Criterion) -> float | None:
        """Seconds that a training may take; the module's own loss has no limit."""
        return None if criterion.is_original else self.budget.timeout

    @property
    def validates(self) -> bool:
        """Whether the outer Trainer validates at all."""
        return bool(self._trainer_kwargs["limit_val_batches"])

    @property
    def training(self) -> dict[str, Any]:
        """What of the Trainer's arguments changes a training."""
        left_out = ("default_root_dir", "logger", "devices", "plugins", "enable")
        kept = {name: value for name, value in self._trainer_kwargs.items() if not name.startswith(left_out)}
        return {"class": f"{self._trainer_class.__module__}.{self._trainer_class.__qualname__}", **kept}

    @property
    def generators(self) -> list[Any]:
        """Random generators of its own that the data draw from."""
        return generators(self.datamodule, *self.loaders.values())

    def candidate(self, criterion: Criterion, seed: int) -> Any:
        """Return a module to train with ``criterion``, its weights drawn from ``seed`` unless given."""
        seed_all(seed, self.generators)
        module = fresh_module(self.module, self.init)
        if not callable(self.init):
            # Set up already, with the outer module; a second time might build other layers or other splits
            module.setup = module.teardown = nothing
        else:
            module.prepare_data()
            module.configure_model()
        module.prepare_data = _prepared(module)
        # A second time it would make another loss
        module.configure_model = nothing
        module.configure_callbacks = list
        with_fresh_iterators(module)
        leave_ranks(module)
        self.slots.install(module, criterion)
        set_step(module, criterion.step)
        return module

    def trainer(self, *callbacks: Any, **overrides: Any) -> Any:
        """A fresh Trainer for the budget, with ``callbacks`` before the user's; ``overrides`` win."""
        limits = {"max_epochs": self.budget.epochs}
        if self.budget.steps is not None:
            # Schedules ask the Trainer for its epochs
            known = math.isfinite(self.epoch_batches)
            epochs = math.ceil(self.budget.steps / self.epoch_steps()) if known else -1
            limits = {"max_epochs": epochs, "max_steps": self.budget.steps}
        everything = {"callbacks": [*callbacks, *copy.deepcopy(self.callbacks)], **limits, **overrides}
        return self._trainer_class(**(self._trainer_kwargs | everything))

    def epoch_steps(self) -> int:
        """Optimizer steps of one epoch, 1 if unknown."""
        steps = self.epoch_batches / self._trainer_kwargs["accumulate_grad_batches"]
        return math.ceil(steps) if math.isfinite(steps) else 1

    def data(self, validate: bool = False) -> dict[str, Any]:
        """The data as arguments of ``Trainer.fit``, or of ``Trainer.validate``."""
        if self.datamodule is not None:
            return {"datamodule": with_fresh_iterators(_detached(self.datamodule))}
        loaders = {name: fresh_iterators(loader) for name, loader in self.loaders.items()}
        return {"dataloaders": loaders.get("val_dataloaders")} if validate else loaders


class _NoLogger(DummyLogger):
    """Discards what is logged, with the methods of the logger that it stands in for; files go to ``directory``."""

    def __init__(self, directory: str, outer: Any) -> None:
        super().__init__()
        self._directory = directory
        self._methods = frozenset(dir(outer))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in vars(self).get("_methods", ()):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return nothing

    save_dir = log_dir = root_dir = property(lambda self: self._directory)


def _trainer_kwargs(outer: Any) -> dict[str, Any]:
    # It lives as long as the outer Trainer
    directory = tempfile.mkdtemp(prefix="tglo-")
    weakref.finalize(outer, shutil.rmtree, directory, ignore_errors=True)
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
        # Code that writes files or uses `self.logger` runs, and leaves nothing
        "default_root_dir": directory,
        "logger": [_NoLogger(directory, logger) for logger in outer.loggers] or False,
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


def _loaders(trainer: Any) -> dict[str, Any]:
    """The loaders that were handed to the outer ``fit``, by the argument's name."""
    loop = trainer.fit_loop
    sources = {"train_dataloaders": loop._data_source, "val_dataloaders": loop.epoch_loop.val_loop._data_source}
    return {name: source.instance for name, source in sources.items() if not source.is_module()}


def _detached(datamodule: Any) -> Any:
    """A shallow copy that belongs to no Trainer and counts as set up."""
    if datamodule is None:
        return None
    twin = copy.copy(datamodule)
    twin.trainer = None
    twin.setup = twin.teardown = nothing
    twin.prepare_data = _prepared(twin)
    for name, value in list(vars(twin).items()):
        if isinstance(value, DataLoader):
            setattr(twin, name, fresh_iterators(value))
    return twin


def _prepared(holder: Any) -> Any:
    """Lightning's empty ``prepare_data``: before any other it would wait for all ranks."""
    bases: tuple[Any, ...] = type(holder).__mro__
    return next(base.prepare_data for base in bases if base.__name__ == "DataHooks")


def set_step(module: Any, step: float) -> None:
    """Let a module configure optimizers and schedules at ``step`` times its rates, whenever it is asked for them."""
    if step != 1:
        module.configure_optimizers = partial(_configured, module.configure_optimizers, step)


def _configured(configure: Callable[[], Any], step: float) -> Any:
    with scaled_rates(step):
        return configure()


def scale_optimizers(trainer: Any, step: float) -> None:
    """Scale the rates of those optimizers of a Trainer that were built before its module was asked for them."""
    scale_built(trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs], step)


def rebuild_optimizers(trainer: Any, step: float) -> None:
    """Let a Trainer's module configure its optimizers and schedules again, at ``step`` times the rates it gives them.

    To be called at the start of a fit, when the optimizers have no state yet.
    """
    if step == 1:
        return
    schedules = {id(config.scheduler) for config in trainer.lr_scheduler_configs}
    groups = [(group, dict(group)) for optimizer in trainer.optimizers for group in optimizer.param_groups]
    for group, _ in groups:
        # An optimizer that the module has kept gets its schedule anew, which begins with its rate
        group["lr"] = group.pop("initial_lr", group["lr"])
    with scaled_rates(step):
        trainer.strategy.setup_optimizers(trainer)
    if any(id(config.scheduler) in schedules for config in trainer.lr_scheduler_configs):
        for group, before in groups:
            group.update(before)
    scale_optimizers(trainer, step)
