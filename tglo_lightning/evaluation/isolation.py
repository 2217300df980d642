"""What an inner training must not leave behind: random states, messages, generators moved on."""

from __future__ import annotations

import copy
import logging
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader

__all__ = ["fresh_iterators", "generators", "isolated", "preserved", "seed_all"]

LIGHTNING_LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")


def seed_all(seed: int, generators: Iterable[torch.Generator] = ()) -> None:
    """Seed Python, numpy, torch (all devices) and the given generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (user code draws from the global generator)
    torch.manual_seed(seed)
    for generator in generators:
        generator.manual_seed(seed)


@contextmanager
def isolated(quiet: bool = True) -> Iterator[None]:
    """Run inner trainings: global random states are restored afterwards, Lightning's chatter is muted."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS] if quiet else []
    levels = [logger.level for logger in loggers]
    with isolate_rng(), warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def generators(*sources: Any) -> list[torch.Generator]:
    """The random generators that data loaders, or the attributes of a datamodule, draw from."""
    found: dict[int, torch.Generator] = {}

    def collect(value: Any) -> None:
        if isinstance(value, torch.Generator):
            found[id(value)] = value
        elif isinstance(value, DataLoader):
            holders: list[Any] = [value, value.sampler, value.batch_sampler]
            holders += [getattr(holder, "sampler", None) for holder in holders[1:]]
            for holder in holders:
                collect(getattr(holder, "generator", None))
        elif isinstance(value, dict):
            for entry in value.values():
                collect(entry)
        elif isinstance(value, list | tuple):
            for entry in value:
                collect(entry)

    for source in sources:
        if source is not None:
            collect(source if isinstance(source, DataLoader | dict | list | tuple) else vars(source))
    return list(found.values())


@contextmanager
def preserved(generators: Iterable[torch.Generator]) -> Iterator[None]:
    """Put the generators back to the state they have now."""
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def fresh_iterators(loaders: Any) -> Any:
    """The same loaders, without the worker processes that a persistent iterator keeps with their random states."""

    def renew(loader: DataLoader[Any]) -> DataLoader[Any]:
        twin = copy.copy(loader)
        twin._iterator = None
        return twin

    function: Callable[..., Any] = renew
    return apply_to_collection(loaders, DataLoader, function)
