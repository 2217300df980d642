"""Look at a module in evaluation mode, and leave it as it was."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tglo_lightning.module.loaders import DEEPEST, LIBRARIES, nothing, root

CONTAINERS = (list, dict, set, deque)
PLAIN = (bool, int, float, str, type(None))
# Larger ones hold data
LONGEST, LARGEST = 1000, 10**6
# What modules and LightningModules keep for themselves
INTERNAL = frozenset(vars(pl.LightningModule()))


@contextmanager
def preserved_module(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, from which ``module`` comes back as it was.

    Put back are mode, gradients, ``requires_grad``, and all that :func:`saved_attributes` notes; a LightningModule logs
    nothing meanwhile. The values of parameters are not watched.
    """
    modes = [(child, child.training) for child in module.modules()]
    parameters = [(p, p.grad, p.requires_grad) for p in module.parameters()]
    put_back = saved_attributes(module)
    if hasattr(type(module), "log_dict"):
        # On the instance these hide the methods of the class
        vars(module).update(log=nothing, log_dict=nothing)
    try:
        module.eval()
        yield
    finally:
        put_back()
        # Into the instances' dictionaries: assignment to a module's attribute is slow
        for child, training in modes:
            vars(child)["training"] = training
        for parameter, gradient, required in parameters:
            if parameter.grad is not gradient:
                parameter.grad = gradient
            if parameter.requires_grad != required:
                parameter.requires_grad_(required)


def saved_attributes(module: nn.Module) -> Callable[[], None]:
    """Note what a module remembers beside its parameters: buffers, metrics, plain attributes, small containers, tensors
    and arrays, and the same of objects of the user's own classes.

    Returns:
        A function that puts it all back, as often as it is called.
    """
    undo: list[Callable[[], Any]] = []
    seen: set[int] = set()

    def note(value: Any, largest: float = LARGEST, depth: int = 0) -> None:
        if id(value) in seen or depth > DEEPEST:
            return
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) and value.numel() <= largest:
                undo.append(partial(_set_tensor, value, value.detach().clone()))
        elif isinstance(value, CONTAINERS) and len(value) <= LONGEST:
            undo.append(partial(_refill, value, copy.copy(value)))
            for entry in value.values() if isinstance(value, dict) else value:
                note(entry, depth=depth + 1)
        elif isinstance(value, np.ndarray) and value.size <= largest and value.flags.writeable:
            undo.append(partial(np.copyto, value, value.copy()))
        elif hasattr(value, "__dict__") and not any(root(kind) in LIBRARIES for kind in type(value).__mro__[:-1]):
            undo.append(partial(_set_attributes, value, dict(vars(value))))
            for entry in vars(value).values():
                note(entry, depth=depth + 1)

    for child in module.modules():
        own = {name: value for name, value in vars(child).items() if name not in INTERNAL}
        undo.append(partial(_set_attributes, child, own))
        for buffer in child._buffers.values():
            note(buffer, math.inf)
        for value in own.values():
            note(value)
        undo.append(partial(child._buffers.update, dict(child._buffers)))

    def put_back() -> None:
        for function in undo:
            function()

    return put_back


def plain_attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some attributes that are plain values, and the lengths of those that are containers."""
    plain = {name: value for name, value in values.items() if isinstance(value, PLAIN)}
    return plain | {name: len(value) for name, value in values.items() if isinstance(value, CONTAINERS)}


def _set_attributes(module: Any, values: dict[str, Any]) -> None:
    for name in vars(module).keys() - values.keys() - INTERNAL:
        del vars(module)[name]
    vars(module).update(values)


@torch.inference_mode()
def _set_tensor(tensor: Tensor, value: Tensor) -> None:
    if not torch.equal(tensor, value):
        tensor.copy_(value)


def _refill(container: Any, values: Any) -> None:
    container.clear()
    add = container.update if isinstance(container, dict | set) else container.extend
    add(values)
