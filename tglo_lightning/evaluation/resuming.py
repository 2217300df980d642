"""What a training notes at the start of an epoch, so that another process can go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torchmetrics import Metric

from tglo_lightning.module.loaders import holders
from tglo_lightning.module.preserving import INTERNAL, plain_attributes

__all__ = ["Memory", "load_training", "noted_training", "set_progress", "tensors"]


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
    """

    def __init__(self, trainer: Any, module: Any) -> None:
        data = holders(trainer.train_dataloader, trainer.datamodule)
        self._owners = [*module.modules(), *data, *filter(None, [trainer.datamodule])]
        self._before = self._now()

    @property
    def unchanged(self) -> bool:
        """Whether it is as it was."""
        return self._now() == self._before

    def _now(self) -> list[Any]:
        return [(name, entry) for owner in self._owners for name, entry in _remembered(owner).items()]


def _remembered(owner: Any) -> dict[str, Any]:
    if isinstance(owner, Metric):
        return {"updates": owner._update_count}
    # Lightning sets the epoch of a sampler itself
    own = {name: value for name, value in vars(owner).items() if name not in INTERNAL and name != "epoch"}
    arrays = {name: _Same(value) for name, value in own.items() if isinstance(value, Tensor | np.ndarray)}
    return plain_attributes(own) | arrays


class _Same:
    """Equal to the same tensor or array as long as nobody has written to it."""

    def __init__(self, value: Any) -> None:
        self.value, self.version = value, getattr(value, "_version", None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and (other.value is self.value) and other.version == self.version

    __hash__ = None  # type: ignore[assignment]
