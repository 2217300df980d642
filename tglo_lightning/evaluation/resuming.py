"""What a training notes at the start of an epoch, so that another process can go on from there."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torchmetrics import Metric

from tglo_lightning.module.loaders import LONGEST, owners
from tglo_lightning.module.preserving import INTERNAL, PLAIN

__all__ = ["Memory", "load_training", "noted_training", "set_progress", "tensors"]

CONTAINERS = (dict, list, tuple, set, deque)


def tensors(module: Any) -> dict[str, Tensor]:
    """Parameters and buffers of a module, those that its ``state_dict`` leaves out too."""
    return {name: value.detach() for name, value in (*module.named_parameters(), *module.named_buffers())}


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


def noted_training(trainer: Any, values: Mapping[str, Tensor], **rest: Any) -> dict[str, Any]:
    """Return copies, on the CPU, of what a training is made of, at the start of an epoch.

    Args:
        trainer: trains.
        values: the tensors that are trained, by name.
        rest: what else to note.
    """
    state = {
        **rest,
        "progress": progress(trainer),
        "tensors": dict(values),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "precision": trainer.precision_plugin.state_dict(),
    }
    copied: dict[str, Any] = tree_map_only(Tensor, lambda value: value.detach().to("cpu", copy=True), state)
    return copied


@torch.no_grad()
def load_training(trainer: Any, state: Mapping[str, Any], values: Mapping[str, Tensor]) -> None:
    """Put back what :func:`noted_training` has noted, but for the counters; ``values`` are written to in place."""
    for name, value in values.items():
        value.copy_(state["tensors"][name])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for config, saved in zip(trainer.lr_scheduler_configs, state["schedules"], strict=True):
        config.scheduler.load_state_dict(saved)
    trainer.precision_plugin.load_state_dict(state["precision"])


class Memory:
    """What a module and its data remember beside parameters and buffers, as it is when a training begins.

    A training that has changed it cannot go on in another process, where it would begin anew.

    Args:
        trainer: the Trainer at the start of its training.
        module: the module.
        ours: parts of the module that are not the user's.
    """

    def __init__(self, trainer: Any, module: Any, ours: Sequence[Any] = ()) -> None:
        reached = owners(*module.modules(), trainer.train_dataloader, trainer.datamodule)
        theirs = [owner for owner in reached if all(owner is not own for own in ours)]
        self._owners = [owner for owner in theirs if hasattr(owner, "__dict__")]
        self._before = self._now()

    @property
    def unchanged(self) -> bool:
        """Whether it is as it was."""
        return self._now() == self._before

    def _now(self) -> list[Any]:
        return [_remembered(owner) for owner in self._owners]


def _remembered(owner: Any) -> Any:
    if isinstance(owner, Metric):
        return owner._update_count
    # Lightning sets the epoch of a sampler itself
    return {name: _frozen(value) for name, value in vars(owner).items() if name not in INTERNAL and name != "epoch"}


def _frozen(value: Any, depth: int = 0) -> Any:
    """What to compare of a value; nothing of an object, whose attributes are compared one by one."""
    if isinstance(value, Tensor | np.ndarray):
        return _Same(value)
    if isinstance(value, CONTAINERS):
        entries = value.items() if isinstance(value, dict) else value
        return len(value) if len(value) > LONGEST or depth > 2 else [_frozen(entry, depth + 1) for entry in entries]
    return value if isinstance(value, PLAIN) else None


class _Same:
    """Equal to the same tensor or array as long as nobody has written to it."""

    def __init__(self, value: Any) -> None:
        self.value, self.version = value, getattr(value, "_version", None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and (other.value is self.value) and other.version == self.version

    __hash__ = None  # type: ignore[assignment]
