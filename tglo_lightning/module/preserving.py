"""Look at a module in evaluation mode, and leave it as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from tglo_lightning.module.loaders import nothing

__all__ = ["preserved_module", "saved_attributes"]

# Attributes that a step may change and that are copied in no time
PLAIN = (bool, int, float, str, type(None))
CONTAINERS = (list, dict, set)
# A longer container holds data
LONGEST = 1000


@contextmanager
def preserved_module(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, from which ``module`` comes back as it was.

    Put back are mode, buffers, gradients, ``requires_grad`` and the state of every torchmetrics metric; a
    LightningModule logs nothing meanwhile. The values of parameters are not watched, nor are lists and other plain
    attributes that a step writes to.
    """
    modules = list(module.modules())
    modes = [(child, child.training) for child in modules]
    parameters = [(p, p.grad, p.requires_grad) for p in module.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    tables = [(child._buffers, dict(child._buffers)) for child in modules]
    metrics = [(child, _copy(child)) for child in modules if isinstance(child, Metric)]
    # On the instance these hide the methods of the class
    logs = ("log", "log_dict") if hasattr(type(module), "log_dict") else ()
    hidden = {name: vars(module)[name] for name in logs if name in vars(module)}
    vars(module).update(dict.fromkeys(logs, nothing))
    try:
        module.eval()
        yield
    finally:
        for name in logs:
            del vars(module)[name]
        vars(module).update(hidden)
        # Into the instances' dictionaries: assignment to a module's attribute is slow
        for child, training in modes:
            vars(child)["training"] = training
        for parameter, gradient, required in parameters:
            if parameter.grad is not gradient:
                parameter.grad = gradient
            if parameter.requires_grad != required:
                parameter.requires_grad_(required)
        for table, own in tables:
            table.update(own)
        with torch.no_grad():
            for buffer, saved in buffers:
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)
        for metric, state in metrics:
            vars(metric).update(state)


def _copy(metric: Metric) -> dict[str, Any]:
    """A metric's attributes, apart from what an update changes in place."""
    state = metric.metric_state.items()
    return vars(metric) | {name: value.clone() if isinstance(value, Tensor) else list(value) for name, value in state}


def saved_attributes(module: nn.Module) -> Callable[[], None]:
    """Note what a module remembers beside its parameters: metrics, buffers, plain attributes and small containers.

    Returns:
        A function that puts it all back.
    """
    metrics = [(child, _copy(child)) for child in module.modules() if isinstance(child, Metric)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    known = {id(child) for metric, _ in metrics for child in metric.modules()}
    plain: list[tuple[nn.Module, dict[str, Any]]] = []
    for child in module.modules():
        if id(child) not in known:
            own = {k: v for k, v in vars(child).items() if k[:1] != "_" or isinstance(v, PLAIN)}
            kept = {k: v for k, v in own.items() if isinstance(v, PLAIN)}
            kept |= {k: copy.deepcopy(v) for k, v in own.items() if isinstance(v, CONTAINERS) and len(v) <= LONGEST}
            plain.append((child, kept))

    def put_back() -> None:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for metric, state in metrics:
            vars(metric).update({k: _fresh(v) for k, v in state.items()})
        for child, kept in plain:
            vars(child).update({k: v if isinstance(v, PLAIN) else copy.deepcopy(v) for k, v in kept.items()})

    return put_back


def _fresh(value: Any) -> Any:
    """Copies of what an update would change in place."""
    return value.clone() if isinstance(value, Tensor) else list(value) if isinstance(value, list) else value
