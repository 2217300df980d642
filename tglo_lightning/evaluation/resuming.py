"""What a training notes at the start of an epoch, so that another process can go on from there."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from io import BytesIO
from numbers import Number
from types import FunctionType, MemberDescriptorType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset
from torchmetrics import Metric, MetricCollection

from tglo_lightning.module.loaders import LIBRARIES, reached, root
from tglo_lightning.module.preserving import INTERNAL, LONGEST

__all__ = ["Memory", "load_training", "noted_training", "set_progress", "tensors", "write"]

CONTAINERS = (dict, list, tuple, set, deque)
VALUES = (Number, str, bytes, Enum, type(None))
# What has a state of its own, whoever wrote it
STATEFUL = (nn.Module, Optimizer, LRScheduler, Iterator)
SAMPLED = 10**5


def tensors(module: Any) -> dict[str, Tensor]:
    """Parameters and buffers of a module, those that its ``state_dict`` leaves out too."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: value if is_lazy(value) else value.detach() for name, value in named}


def progress(trainer: Any) -> dict[str, int]:
    """Return how far a Trainer has come, between two epochs."""
    loop = trainer.fit_loop.epoch_loop
    return {
        "epochs": trainer.current_epoch,
        "batches": loop.batch_progress.total.ready,
        "steps": loop.automatic_optimization.optim_progress.optimizer.step.total.completed,
        "manual_steps": loop.manual_optimization.optim_step_progress.total.completed,
        "stepped": loop._batches_that_stepped,
    }


def set_progress(trainer: Any, epochs: int, batches: int, steps: int, manual_steps: int, stepped: int) -> None:
    """Set the counters of a Trainer that starts to train to what :func:`progress` says."""
    loop = trainer.fit_loop.epoch_loop
    optimizer = loop.automatic_optimization.optim_progress.optimizer
    for counter, count in (
        (trainer.fit_loop.epoch_progress.current, epochs),
        (trainer.fit_loop.epoch_progress.total, epochs),
        (loop.batch_progress.total, batches),
        (optimizer.step.total, steps),
        (optimizer.zero_grad.total, steps),
        (loop.manual_optimization.optim_step_progress.total, manual_steps),
    ):
        vars(counter).update(dict.fromkeys(vars(counter), count))
    loop._batches_that_stepped = stepped


def noted_training(trainer: Any, values: Mapping[str, Tensor], **rest: Any) -> dict[str, Any] | None:
    """Return copies, on the CPU, of what a training is made of, at the start of an epoch.

    Args:
        trainer: trains.
        values: the tensors that are trained, by name.
        rest: what else to note.

    Returns:
        Tensors and plain values; ``None`` if an optimizer or a schedule has a state of other objects.
    """
    state = {
        **rest,
        "progress": progress(trainer),
        "logged": dict(trainer.callback_metrics),
        "tensors": dict(values),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "precision": trainer.precision_plugin.state_dict(),
    }
    # A subclass of float that files of plain values cannot hold
    state = tree_map_only(np.float64, float, state)
    if not _loads(tree_map_only(Tensor, lambda value: None, state)):
        return None
    copied: dict[str, Any] = tree_map_only(Tensor, lambda value: value.detach().to("cpu", copy=True), state)
    return copied


def _loads(state: Any) -> bool:
    """Whether ``torch.load(..., weights_only=True)`` reads this."""
    file = BytesIO()
    try:
        torch.save(state, file)
        torch.load(BytesIO(file.getvalue()), weights_only=True)
    except Exception:  # whatever a class raises when it is pickled
        return False
    return True


@torch.no_grad()
def load_training(trainer: Any, state: Mapping[str, Any], values: Mapping[str, Tensor]) -> None:
    """Put back what :func:`noted_training` has noted, but for the counters; ``values`` are written to in place."""
    write(values, state["tensors"])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
        # That gives every tensor the type of its parameter
        loaded = optimizer.state_dict()["state"]
        for place, own in saved["state"].items():
            for name, value in own.items():
                if isinstance(value, Tensor) and value.dtype != loaded[place][name].dtype:
                    loaded[place][name] = value.to(loaded[place][name].device)
    for config, saved in zip(trainer.lr_scheduler_configs, state["schedules"], strict=True):
        config.scheduler.load_state_dict(saved)
    trainer.precision_plugin.load_state_dict(state["precision"])
    trainer._logger_connector._callback_metrics.update(state["logged"])


@torch.no_grad()
def write(values: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Give tensors the values that were saved of them, in place."""
    for name, value in values.items():
        if is_lazy(value):
            value.materialize(saved[name].shape)
        # Nobody can write to a buffer that is an expanded view
        if not torch.equal(value, saved[name].to(value.device)):
            value.copy_(saved[name])


class Memory:
    """What a module and its data remember beside the values of parameters and buffers, as it is when a training begins.

    A training that has changed it cannot go on in another process, where it would begin anew. Of arrays and tensors of
    more than :data:`SAMPLED` elements so many are compared.

    Args:
        trainer: the Trainer at the start of its first epoch.
        module: the module.
        ours: parts of the module that are not the user's.
    """

    def __init__(self, trainer: Any, module: Any, ours: Sequence[Any] = ()) -> None:
        self._trainer, self._module, self._ours = trainer, module, ours
        self._before = self._now()

    @property
    def unchanged(self) -> bool:
        """Whether it is as it was."""
        return self._now() == self._before

    def _now(self) -> list[Any]:
        trainer, module = self._trainer, self._module
        noted = [*trainer.optimizers, *(config.scheduler for config in trainer.lr_scheduler_configs)]
        skipped = {id(item) for item in (*noted, *self._ours)}
        sources = {id(source): source for source in (*module.modules(), trainer.train_dataloader, trainer.datamodule)}
        # Modules within containers or objects are not among those of the module
        while True:
            found, owners = reached((*STATEFUL, type(trainer)), sources.values())
            hidden = [part for child in found if isinstance(child, nn.Module) for part in child.modules()]
            more = {id(part): part for part in hidden if id(part) not in sources}
            if not more:
                break
            sources |= more
        looked = {id(owner): owner for owner in (*sources.values(), *owners)}
        shown = {id(value) for value in (*module.parameters(), *module.buffers())}
        state: list[Any] = [
            [(name, p.requires_grad) for name, p in module.named_parameters()],
            [name for name, _ in module.named_buffers()],
            [(name, child.training) for name, child in module.named_modules()],
            [len(optimizer.param_groups) for optimizer in trainer.optimizers],
        ]
        inside = [source for source in sources.values() if isinstance(source, nn.Module)]
        state += [_frozen(value) for part in inside for value in _tensors(part) if id(value) not in shown]
        state += [_remembered(owner) for key, owner in looked.items() if key not in skipped]
        for item in found:
            if isinstance(item, Iterator):
                # Nobody can tell how far it has come
                state.append(object())
            elif isinstance(item, Optimizer | LRScheduler) and id(item) not in skipped:
                state.append(_frozen(vars(item)))
        return state


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _remembered(owner: Any) -> Any:
    if isinstance(owner, Metric):
        return owner._update_count
    if isinstance(owner, MetricCollection):
        return None
    kinds = [kind for kind in type(owner).__mro__ if root(kind) not in LIBRARIES]
    values = {name: value for kind in reversed(kinds) for name, value in vars(kind).items()}
    slots = [name for name, value in values.items() if isinstance(value, MemberDescriptorType)]
    values |= {name: getattr(owner, name) for name in slots if hasattr(owner, name)} | getattr(owner, "__dict__", {})
    if isinstance(owner, FunctionType):
        values |= inspect.getclosurevars(owner).nonlocals
    internal = INTERNAL if isinstance(owner, nn.Module) else frozenset()
    if callable(getattr(owner, "set_epoch", None)) and not isinstance(owner, Dataset):
        # Lightning sets the epoch of a sampler itself
        internal |= {"epoch"}
    return {name: _frozen(value) for name, value in values.items() if name not in internal}


def _frozen(value: Any, depth: int = 0) -> Any:
    """What to compare of a value; nothing of an object, whose attributes are compared one by one."""
    if isinstance(value, Tensor):
        return _sample(value)
    if isinstance(value, np.ndarray):
        return value.shape, value.reshape(-1)[:: 1 + value.size // SAMPLED].tobytes()
    if isinstance(value, CONTAINERS):
        entries = value.items() if isinstance(value, dict) else value
        return len(value) if len(value) > LONGEST or depth > 3 else [_frozen(entry, depth + 1) for entry in entries]
    return value if isinstance(value, VALUES) else None


def _sample(value: Tensor) -> Any:
    if value.layout != torch.strided or value.is_meta or value.is_quantized or is_lazy(value):
        return id(value)
    some = value.detach().reshape(-1)[:: 1 + value.numel() // SAMPLED]
    return value.shape, value.dtype, hash(some.cpu().contiguous().view(torch.uint8).numpy().tobytes())
