"""What keeps a module from being trained as a population, as far as it shows without running a step."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from tglo_lightning.module.loaders import nothing

__all__ = ["NotVectorizable", "check_static", "silenced", "transfers_batches"]

# Their steps treat every element alike, so one step over stacked parameters is one step for each candidate
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
# Hooks of a training that would have to run once for each candidate; what `on_train_start` does serves all
HOOKS = (
    "on_train_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "optimizer_step",
    "optimizer_zero_grad",
    "on_before_zero_grad",
    "configure_gradient_clipping",
    "lr_scheduler_step",
)
TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
LOGGING = ("log", "log_dict", "print")
LIGHTNING = ("pytorch_lightning", "lightning")


class NotVectorizable(Exception):
    """What keeps a module from being trained as a population."""


def check_static(trainer: Any, module: Any, callbacks: Sequence[Any]) -> None:
    """Raise :class:`NotVectorizable` for what can be seen without running a step; ``callbacks`` are the user's."""
    if not module.automatic_optimization:
        raise NotVectorizable("it optimises manually")
    if hooks := _overridden(module, "LightningModule"):
        raise NotVectorizable(f"it overrides {', '.join(hooks)}")
    for callback in callbacks:
        if hooks := _overridden(callback, "Callback", ("on_train_start", *HOOKS)):
            raise NotVectorizable(f"{type(callback).__name__} overrides {', '.join(hooks)}")
    optimizer = trainer.optimizers[0]
    if type(optimizer) not in ELEMENTWISE:
        raise NotVectorizable(f"{type(optimizer).__name__} is not known to be elementwise")
    if any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
        raise NotVectorizable("its schedule follows a metric, and each candidate would have one of its own")
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise NotVectorizable("16-bit precision scales the loss by what it finds in all gradients")


def transfers_batches(trainer: Any, module: Any) -> bool:
    """Whether a batch has to be moved, or changed by hooks of the module or its datamodule on the way."""
    owners = ((module, "LightningModule"), (trainer.datamodule, "LightningDataModule"))
    device: torch.device = trainer.strategy.root_device
    return device.type != "cpu" or any(_overridden(owner, base, TRANSFER) for owner, base in owners if owner)


def _overridden(owner: Any, base_name: str, hooks: Sequence[str] = HOOKS) -> list[str]:
    """Which of the hooks the class of ``owner`` defines anew, below Lightning's class of this name."""
    kind = type(owner)
    parents = [c for c in kind.__mro__ if c.__name__ == base_name and c.__module__.split(".")[0] in LIGHTNING]
    own = {name: getattr(kind, name, None) for name in hooks}
    own = {name: hook for name, hook in own.items() if all(hook != getattr(base, name, None) for base in parents)}
    return [name for name, hook in own.items() if not _empty(hook)]


def _empty(hook: Any) -> bool:
    """Whether a hook does nothing and returns ``None``, as those of templates that wait to be filled in."""
    if not isinstance(hook, FunctionType):
        return False
    steps = [step for step in dis.get_instructions(hook) if step.opname not in ("RESUME", "NOP")]
    return all(s.opname in ("LOAD_CONST", "RETURN_VALUE", "RETURN_CONST") and s.argval is None for s in steps)


class _Silent(nn.Module):
    """Stands in for a metric, or a collection of them, where there is nothing to measure."""

    def __init__(self, metric: Metric | MetricCollection) -> None:
        super().__init__()
        self.names = [str(name) for name in metric] if isinstance(metric, MetricCollection) else None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | dict[str, Tensor]:
        """Zero, whatever comes in."""
        return torch.zeros(()) if self.names is None else {name: torch.zeros(()) for name in self.names}

    def __getitem__(self, name: str) -> _Silent:
        return self

    update = reset = nothing
    compute = forward


@contextmanager
def silenced(module: Any) -> Iterator[None]:
    """Within, ``self.log`` and torchmetrics do nothing: a population's values are none of their business."""
    metrics = [
        (parent, name, child)
        for parent in module.modules()
        if not isinstance(parent, Metric | MetricCollection)
        for name, child in parent._modules.items()
        if isinstance(child, Metric | MetricCollection)
    ]
    for parent, name, child in metrics:
        parent._modules[name] = _Silent(child)
    for name in LOGGING:
        setattr(module, name, nothing)
    try:
        yield
    finally:
        for name in LOGGING:
            delattr(module, name)
        for parent, name, child in metrics:
            parent._modules[name] = child
