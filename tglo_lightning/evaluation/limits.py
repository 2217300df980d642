"""What ends a candidate's training early, and what memory errors look like."""

from __future__ import annotations

import time

import torch

from tglo_lightning.evaluation.inner import Budget

__all__ = ["Clock", "Hopeless", "TimedOut", "out_of_memory", "overdue"]

# What torch says where it raises no exception of its own for it, in small letters
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


class TimedOut(Exception):
    """A training took longer than it may."""


class Hopeless(Exception):
    """A training has not reached what it should have by now, but a ``fitness`` that is not good enough."""

    def __init__(self, budget: Budget, fitness: float, monitor: str) -> None:
        minimum = budget.minimum
        assert minimum is not None
        super().__init__(
            f"{monitor} was {fitness:.4g} after {minimum.after} {budget.unit}, "
            f"min_fitness_after asks for {minimum.value:g}"
        )


class Clock:
    """Measures the time of a training, or of ``count`` trainings in one.

    Args:
        timeout: seconds that each may take; ``None`` for any time.
        count: number of trainings.
    """

    def __init__(self, timeout: float | None, count: int = 1) -> None:
        self.started = time.perf_counter()
        self.timeout = timeout
        self.count = count

    def check(self) -> None:
        """Raise :class:`TimedOut` if the time is over."""
        if self.timeout is not None and time.perf_counter() - self.started > self.timeout * self.count:
            raise TimedOut(overdue(self.timeout))

    @property
    def seconds(self) -> float:
        """Time since the start, for each of the trainings."""
        return (time.perf_counter() - self.started) / self.count


def overdue(timeout: float) -> str:
    """Why a candidate was given up."""
    return f"not done within candidate_timeout={timeout:g} s"


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there was not enough memory, on any device."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in NO_MEMORY)
