"""See what reaches a module's loss, and leave the module as it was."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torchmetrics import Metric

__all__ = ["loss_inputs", "untouched"]


class _Reached(BaseException):
    """Ends a step at the loss. Not an ``Exception``, so that no handler of the module holds it up."""


def loss_inputs(module: Any, loss: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """The logits and the target with which ``training_step`` calls ``loss`` first.

    The step ends there: nothing that follows the loss is run, no backward pass, no step of a manual optimisation.

    Args:
        module: a LightningModule, within :func:`untouched`.
        loss: the submodule of it that computes the loss.
        batch: a batch on the module's device.

    Raises:
        ValueError: ``training_step`` does not call ``loss``.
    """
    seen: list[Any] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.extend(inspect.signature(loss.forward).bind(*args, **kwargs).args)
        raise _Reached

    step = module.training_step
    arguments = (batch, 0) if is_param_in_hook_signature(step, "batch_idx", min_args=2) else (batch,)
    hook = loss.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        step(*arguments)
    except _Reached:
        logits, target, *_ = seen
        return logits, target
    finally:
        hook.remove()
    raise ValueError(
        f"{type(module).__name__}.training_step does not call the loss that AttractionMonitor watches. Call it there, "
        "as in self.criterion(logits, target), or pass `loss=` the path of the attribute that it calls."
    )


@contextmanager
def untouched(module: Any) -> Iterator[None]:
    """Evaluation mode without gradients, from which ``module`` comes back as it was.

    Put back are mode, buffers, gradients, ``requires_grad`` and the state of every torchmetrics metric; nothing is
    logged meanwhile. Lists and other plain attributes that a step writes to are not watched.
    """
    modules = list(module.modules())
    # Flags are set in the instances' dictionaries: assignment to a module's attribute is slow
    training = [child for child in modules if child.training]
    buffers = [
        (buffer, buffer.clone()) for child in modules for buffer in child._buffers.values() if buffer is not None
    ]
    parameters = [parameter for child in modules for parameter in child._parameters.values() if parameter is not None]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in parameters]
    metrics = [(child, _copy(child)) for child in modules if isinstance(child, Metric)]
    # On the instance these hide the methods of the class
    vars(module).update(log=_nothing, log_dict=_nothing)
    try:
        for child in training:
            vars(child)["training"] = False
        with torch.no_grad():
            yield
    finally:
        for name in ("log", "log_dict"):
            del vars(module)[name]
        for child in training:
            vars(child)["training"] = True
        for parameter, grad, requires_grad in gradients:
            if parameter.grad is not grad:
                parameter.grad = grad
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        for metric, state in metrics:
            vars(metric).update(state)


def _copy(metric: Metric) -> dict[str, Any]:
    """A metric's attributes, apart from what an update changes in place."""
    state = metric.metric_state.items()
    return vars(metric) | {name: value.clone() if isinstance(value, Tensor) else list(value) for name, value in state}


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Log nothing."""
