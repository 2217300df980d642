"""Look at a module in evaluation mode, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from tglo_lightning.module.loaders import nothing

__all__ = ["preserved_module"]


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
