"""What a search depends on, as plain values: equal for the same script started again, different for another one.

A killed search goes on only where these agree. Figures are rounded: another machine may differ in their last bits.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterable, Mapping
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["data_identity", "described", "digest", "module_identity", "optimizer_identity", "sources"]

# Packages whose code is told by their versions
LIBRARIES = (
    "builtins",
    "torch",
    "torchmetrics",
    "lightning_fabric",
    "pytorch_lightning",
    "lightning",
    "tglo_lightning",
)
# A longer container holds data
LONGEST = 100


def digest(value: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(repr(value).encode(errors="replace")).hexdigest()[:12]


def module_identity(module: nn.Module) -> dict[str, Any]:
    """Class, source code, structure and weights of ``module``."""
    classes = {kind for child in module.modules() for kind in type(child).__mro__}
    structure = [
        (
            name,
            _name(type(child)),
            described(
                {key: value for key, value in vars(child).items() if not key.startswith("_")},
                # A string of the user's may be a path with the time in it; one of torch's is an option
                texts=_library(type(child)),
            ),
            [(key, tuple(p.shape), str(p.dtype), p.requires_grad) for key, p in child.named_parameters(recurse=False)],
            [(key, tuple(b.shape), str(b.dtype)) for key, b in child.named_buffers(recurse=False)],
        )
        for name, child in module.named_modules()
    ]
    return {
        "module": _name(type(module)),
        "source": sources(classes),
        "parameters": sum(p.numel() for p in module.parameters() if not isinstance(p, nn.UninitializedParameter)),
        "structure": digest(structure),
        "weights": digest([(name, _figures(value)) for name, value in module.state_dict().items()]),
    }


def sources(objects: Iterable[Any]) -> dict[str, str]:
    """Hashes of the source code of classes and functions that belong to no library, by name."""
    found: dict[str, list[str]] = {}
    for item in objects:
        if _library(item):
            continue
        try:
            found.setdefault(_name(item), []).append(digest(inspect.getsource(item)))
        except (OSError, TypeError):  # typed at a prompt
            continue
    return {name: " ".join(sorted(hashes)) for name, hashes in sorted(found.items())}


def optimizer_identity(trainer: Any) -> list[Any]:
    """Classes and settings of the optimizers and schedulers of ``trainer``."""
    optimizers = [
        [_name(type(o)), [{k: described(v) for k, v in g.items() if k != "params"} for g in o.param_groups]]
        for o in trainer.optimizers
    ]
    schedulers = [
        [_name(type(c.scheduler)), c.interval, c.frequency, described(c.scheduler.state_dict(), texts=False)]
        for c in trainer.lr_scheduler_configs
    ]
    return [*optimizers, *schedulers]


def data_identity(batches: Any, lengths: Any) -> dict[str, Any]:
    """Lengths, and a hash of the first batches of training and validation."""
    return {"lengths": lengths, "first": digest([_leaf(leaf) for leaf in tree_leaves(batches)])}


def described(value: Any, texts: bool = True) -> Any:
    """Plain values that tell one setting from another: numbers, names of classes and functions, figures of tensors."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(value)
    if isinstance(value, Number):
        return repr(value)
    if isinstance(value, str):
        return value if texts else "text"
    if isinstance(value, Mapping):
        items = list(value.items())[:LONGEST]
        return {str(key): described(entry, texts) for key, entry in items}
    if isinstance(value, list | tuple | set | frozenset):
        entries = [described(entry, texts) for entry in list(value)[:LONGEST]]
        return sorted(entries, key=repr) if isinstance(value, set | frozenset) else entries
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc"):
        return _figures(value if isinstance(value, Tensor) else torch.as_tensor(value))
    if isinstance(value, partial):
        return [_name(value.func), described(value.args, texts), described(value.keywords, texts)]
    if isinstance(value, type) or inspect.isroutine(value):
        return _name(value)
    return _name(type(value))


def _leaf(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and not leaf.is_floating_point() and not leaf.is_complex():
        return hashlib.sha256(leaf.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    return described(leaf)


def _figures(tensor: Any) -> Any:
    """Shape, type, norm and weighted norm; the second tells the order of the elements."""
    if not isinstance(tensor, Tensor) or isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
        return type(tensor).__name__
    shape, kind = list(tensor.shape), str(tensor.dtype)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.numel() == 0:
        return [shape, kind]
    values = (tensor.detach().abs() if tensor.is_complex() else tensor.detach()).flatten().cpu().double()
    weights = torch.linspace(1, 2, len(values), dtype=torch.float64)
    return [shape, kind, f"{float(values.norm()):.3e}", f"{float((values * weights).norm()):.3e}"]


def _library(item: Any) -> bool:
    return (getattr(item, "__module__", None) or "builtins").partition(".")[0] in LIBRARIES


def _name(item: Any) -> str:
    return f"{getattr(item, '__module__', None)}.{getattr(item, '__qualname__', type(item).__qualname__)}"
