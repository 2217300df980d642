"""What an inner training must not leave behind: random states, messages, generators moved on."""

from __future__ import annotations

import copy
import logging
import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader, Dataset, Sampler

from tglo_lightning.search.seeding import random_states, seed_all

__all__ = [
    "environment",
    "fresh_iterators",
    "generators",
    "isolated",
    "nothing",
    "preserved",
    "random_states",
    "seed_all",
]

LIGHTNING_LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
HOLDERS = (DataLoader, Dataset, Sampler)
# A longer container holds samples, not generators
LONGEST = 100


@contextmanager
def isolated(quiet: bool = True) -> Iterator[None]:
    """Run inner trainings: global random states are restored afterwards, Lightning's chatter is muted."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS] if quiet else []
    levels = [logger.level for logger in loggers]
    with random_states(), warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def environment(**defaults: str) -> Iterator[None]:
    """Environment variables that have no value yet have these within."""
    missing = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


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


@contextmanager
def preserved(generators: Iterable[Any]) -> Iterator[None]:
    """Put the generators back to the state they have now."""
    restore: list[Callable[[], Any]] = []
    for generator in generators:
        if isinstance(generator, np.random.Generator):
            restore.append(partial(setattr, generator.bit_generator, "state", generator.bit_generator.state))
        elif isinstance(generator, random.Random):
            restore.append(partial(generator.setstate, generator.getstate()))
        else:
            restore.append(partial(generator.set_state, generator.get_state()))
    try:
        yield
    finally:
        for undo in restore:
            undo()


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
