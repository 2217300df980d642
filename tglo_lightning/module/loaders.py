"""Data loaders: the generators they draw from, and copies without worker processes."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
HOLDERS = (DataLoader, Dataset, Sampler)
# A longer container holds samples, not generators
LONGEST, DEEPEST = 100, 6
LARGE = 10**6
LIGHTNING = ("pytorch_lightning", "lightning")
# Their objects hold no generators of the user's
LIBRARIES = (*LIGHTNING, "builtins", "torch", "numpy", "torchmetrics", "functools", "types")


def generators(*sources: Any) -> list[Any]:
    """The random generators of torch, numpy and Python that data loaders, or the attributes of a datamodule or a
    module, draw from: those of their samplers, datasets, transforms and collate functions.
    """
    return reached(GENERATORS, sources)[0]


def large_data(module: nn.Module) -> list[Any]:
    """The tensors and arrays of more than a million elements that a module holds beside parameters and buffers."""
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    return [
        value
        for value in reached((Tensor, np.ndarray), module.modules())[0]
        if id(value) not in own
        and (value.size > LARGE if isinstance(value, np.ndarray) else value.numel() > LARGE and not value.requires_grad)
    ]


def reached(kinds: tuple[type, ...], sources: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Instances of ``kinds`` that can be reached from ``sources`` over attributes and short containers, and what was
    looked into on the way: ``sources``, and loaders, samplers, data sets, functions and objects of the user's.
    """
    found: list[Any] = []
    owners: list[Any] = []
    seen: set[int] = set()

    def collect(value: Any, depth: int) -> None:
        if id(value) in seen or depth > DEEPEST:
            return
        if isinstance(value, kinds):
            seen.add(id(value))
            found.append(value)
        elif isinstance(value, dict | list | tuple):
            for entry in (value.values() if isinstance(value, dict) else value) if len(value) <= LONGEST else ():
                collect(entry, depth + 1)
        elif isinstance(value, HOLDERS) or not (isinstance(value, type) or root(type(value)) in LIBRARIES):
            seen.add(id(value))
            owners.append(value)
            for entry in list(getattr(value, "__dict__", {}).values()):
                collect(entry, depth + 1)
        if isinstance(value, partial):
            collect([value.func, value.args, value.keywords], depth)
        elif isinstance(value, MethodType):
            collect(value.__self__, depth)
        elif isinstance(value, FunctionType):
            seen.add(id(value))
            owners.append(value)
            collect(list(inspect.getclosurevars(value).nonlocals.values()), depth)

    for source in sources:
        collect(source, 0)
        if id(source) not in seen:
            owners.append(source)
        for entry in list(getattr(source, "__dict__", {}).values()):
            collect(entry, 1)
    return found, owners


def root(item: Any) -> str:
    """Return the name of the package that a class or a function is from."""
    return str(getattr(item, "__module__", None)).partition(".")[0]


def fresh_iterators(loaders: Any) -> Any:
    """The same loaders at their start: without worker processes that outlive an epoch, and with copies of samplers and
    streams of the user's own, which may keep a position.
    """

    def renew(loader: DataLoader[Any]) -> DataLoader[Any]:
        twin = copy.copy(loader)
        twin._iterator = None
        # Loaders refuse the assignment of attributes
        vars(twin)["persistent_workers"] = False
        streams = isinstance(loader.dataset, IterableDataset)
        names = ("dataset",) if streams else ("sampler", "batch_sampler")
        samplers = [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
        if streams or not all(type(sampler).__module__.startswith(("torch.", "builtins")) for sampler in samplers):
            memo = {} if streams else {id(loader.dataset): loader.dataset}
            try:
                vars(twin).update(copy.deepcopy({name: vars(loader).get(name) for name in names}, memo))
            except Exception:  # what cannot be copied is shared
                return twin
        return twin

    function: Callable[..., Any] = renew
    return apply_to_collection(loaders, DataLoader, function)


def with_fresh_iterators(holder: Any) -> Any:
    """Let the loaders that a module or a datamodule makes be at their start; return it."""
    for name in ("train_dataloader", "val_dataloader"):
        method = getattr(holder, name)
        if isinstance(method, MethodType) and root(method.__func__) not in LIGHTNING:
            vars(holder)[name] = partial(_fresh, method)
    return holder


def _fresh(method: Callable[[], Any]) -> Any:
    return fresh_iterators(method())


def nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for a hook or a method that is not to run; workers can unpickle it."""
