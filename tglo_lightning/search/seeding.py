"""Seed what a training draws random numbers from, and put the global generators back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["random_states", "seed_all"]


def seed_all(seed: int, generators: Iterable[Any] = ()) -> None:
    """Seed Python, numpy, torch (all devices) and the given generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (user code draws from the global generator)
    torch.manual_seed(seed)
    for generator in generators:
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.seed(seed % 2**32)


@contextmanager
def random_states() -> Iterator[None]:
    """Put the global generators back, also after an error, which Lightning's ``isolate_rng`` does not."""
    python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    of_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    of_apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_rng_state(of_torch)
        if of_gpus:
            torch.cuda.set_rng_state_all(of_gpus)
        if of_apple is not None:
            torch.mps.set_rng_state(of_apple)
