"""Data loaders: the generators they draw from, and copies without worker processes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["fresh_iterators", "generators", "nothing"]

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
HOLDERS = (DataLoader, Dataset, Sampler)
# A longer container holds samples, not generators
LONGEST = 100


def generators(*sources: Any) -> list[Any]:
    """The random generators of torch, numpy and Python that data loaders, or the attributes of a datamodule or a
    module, draw from: those of their samplers and datasets.
    """
    found: list[Any] = []
    seen: set[int] = set()

    def collect(value: Any) -> None:
        if id(value) in seen:
            return
        if isinstance(value, GENERATORS):
            seen.add(id(value))
            found.append(value)
        elif isinstance(value, HOLDERS):
            seen.add(id(value))
            collect_attributes(value)
        elif isinstance(value, dict | list | tuple) and len(value) <= LONGEST:
            for entry in value.values() if isinstance(value, dict) else value:
                collect(entry)

    def collect_attributes(holder: Any) -> None:
        for value in getattr(holder, "__dict__", {}).values():
            collect(value)

    for source in sources:
        collect(source)
        collect_attributes(source)
    return found


def fresh_iterators(loaders: Any) -> Any:
    """The same loaders, without the worker processes that a persistent iterator keeps with their random states."""

    def renew(loader: DataLoader[Any]) -> DataLoader[Any]:
        twin = copy.copy(loader)
        twin._iterator = None
        return twin

    function: Callable[..., Any] = renew
    return apply_to_collection(loaders, DataLoader, function)


def nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for a hook or a method that is not to run; workers can unpickle it."""
