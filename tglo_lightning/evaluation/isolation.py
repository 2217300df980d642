"""What an inner training must not leave behind: random states, messages, environment variables."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tglo_lightning.search.seeding import random_states

__all__ = ["environment", "isolated"]

LIGHTNING_LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")


@contextmanager
def isolated(generators: Iterable[Any] = (), *, quiet: bool = True) -> Iterator[None]:
    """Run inner trainings: put random states back afterwards, mute Lightning's messages.

    Args:
        generators: generators to put back, beside the global ones.
        quiet: whether to mute messages and warnings.
    """
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS] if quiet else []
    levels = [logger.level for logger in loggers]
    with random_states(generators), warnings.catch_warnings():
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
