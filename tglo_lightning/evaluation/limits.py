"""What ends a candidate's training early, and what memory errors look like."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tglo_lightning.search import Evaluation

__all__ = ["Clock", "Diverged", "TimedOut", "brief", "failed", "out_of_memory", "overdue"]

# What torch says if it raises no exception of its own for it, in small letters
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")

# As in "Please file an issue on GitHub"
REQUEST = re.compile(
    r"[^.;!]*\b(file|open|submit|report)(ing)?\b[^.;!]*\b(bugs?|issues?|pytorch|github)\b.*", re.IGNORECASE
)


class TimedOut(Exception):
    """A training took longer than it may."""


class Diverged(Exception):
    """A loss or a weight is no longer finite."""


def brief(error: BaseException) -> str:
    """Return kind and first sentences of an error, without a library's request for a bug report."""
    (first, *_) = [*str(error).strip().splitlines(), ""]
    return f"{type(error).__name__}: {REQUEST.sub('', first).strip()}".rstrip(": ")


def failed(error: Exception, seconds: float) -> Evaluation:
    """Return the evaluation of a training that ended with ``error``."""
    if isinstance(error, TimedOut | Diverged):
        status = "timeout" if isinstance(error, TimedOut) else "diverged"
        return Evaluation(math.nan, status, seconds, str(error))
    return Evaluation(math.nan, "crashed", seconds, brief(error))


class Clock:
    """Measures the time of a training, or of ``count`` trainings in one pass. It stands still outside :meth:`running`.

    Args:
        timeout: seconds that each may take; ``None`` for any time.
        count: number of trainings; it may change while the clock stands still.
    """

    def __init__(self, timeout: float | None = None, count: int = 1) -> None:
        self.timeout = timeout
        self.count = count
        self._before = 0.0
        self._started: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the time within."""
        self._started = time.perf_counter()
        try:
            yield
        finally:
            self._before, self._started = self.seconds, None

    def check(self) -> None:
        """Raise :class:`TimedOut` if the time is over."""
        if self.timeout is not None and self.seconds > self.timeout:
            raise TimedOut(overdue(self.timeout))

    @property
    def seconds(self) -> float:
        """Time measured so far, for each of the trainings."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._before + running / self.count


def overdue(timeout: float) -> str:
    """Return why a candidate was given up."""
    return f"not done within timeout={timeout:g} s"


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there was not enough memory, on any device."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in NO_MEMORY)
