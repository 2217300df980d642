"""Seed what a training draws random numbers from, and put all generators back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch


def seed_all(seed: int, generators: Iterable[Any] = ()) -> None:
    """Seed Python, numpy, torch (all devices) and the given generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (user code draws from the global generator)
    if any(device.is_available() for device in (torch.cuda, torch.backends.mps, torch.xpu)):
        torch.manual_seed(seed)
    else:
        # That would also note each call, with its traceback, for a device to come
        torch.default_generator.manual_seed(seed)
    for generator in generators:
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.seed(seed % 2**32)


def derived_seed(*numbers: int) -> int:
    """Return a seed that follows from several numbers."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1)[0])


def saved_states(generators: Iterable[Any] = ()) -> Callable[[], None]:
    """Note the states of Python's, numpy's and torch's global generators, and of the given ones.

    Returns:
        A function that puts them back.
    """
    restore: list[Callable[[], Any]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),  # noqa: NPY002
        partial(torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_available():
        restore.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if torch.backends.mps.is_available():
        restore.append(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
    for generator in generators:
        if isinstance(generator, np.random.Generator):
            restore.append(partial(setattr, generator.bit_generator, "state", generator.bit_generator.state))
        elif isinstance(generator, random.Random):
            restore.append(partial(generator.setstate, generator.getstate()))
        else:
            restore.append(partial(generator.set_state, generator.get_state()))

    def put_back() -> None:
        for undo in restore:
            undo()

    return put_back


@contextmanager
def random_states(generators: Iterable[Any] = ()) -> Iterator[None]:
    """Put the global generators and the given ones back afterwards, also after an error."""
    put_back = saved_states(generators)
    try:
        yield
    finally:
        put_back()
