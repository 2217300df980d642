"""What lives in a worker: an inner evaluator, and the trainings that wait."""

from __future__ import annotations

import pickle
import time
from contextlib import suppress
from typing import Any

import torch

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.limits import failed
from tglo_lightning.search import Criterion, Evaluation, Population
from tglo_lightning.search.evaluator import Resumable

__all__ = ["Worker"]


class Worker:
    """Trains each member as a population of its own; a pool calls the methods from another process."""

    def setup(self, held: tuple[Any, InnerFit], threads: int) -> None:
        """Take on a search: ``held`` is the inner evaluator and what it trains."""
        torch.set_num_threads(threads)
        self.inner, fit = held
        self.inner.setup(fit)
        self._waiting: dict[int, Population] = {}
        self._finished: dict[int, bytes] = {}

    def score(self, key: int, criterion: Criterion, seed: int, until: int, state: bytes | None = None) -> Evaluation:
        """Train the member ``key`` on until so many epochs or steps are done; an exception is an evaluation too.

        One that is new here begins with the ``state`` that a worker has returned.
        """
        started = time.perf_counter()
        population = self._waiting.pop(key, None)
        try:
            if population is None:
                population = self.inner.start([criterion], seed)
                if state is not None and isinstance(population, Resumable):
                    population.restore(pickle.loads(state))
            population.advance(until - population.trained)
            evaluation = next(iter(population.scores()))
            if evaluation.status == "ok" and until < population.length:
                self._waiting[key] = population
                return evaluation
            if evaluation.status == "ok":
                # The training ends before the next one begins; its weights can still be asked for, if there are any
                with suppress(Exception):
                    self._finished[key] = _packed(population)
        except Exception as crash:
            evaluation = failed(crash, time.perf_counter() - started)
        if population is not None:
            population.close()
        return evaluation

    def weights(self, key: int) -> bytes:
        """Return the weights of a member that waits or is done, pickled."""
        return self._finished[key] if key in self._finished else _packed(self._waiting[key])

    def state(self, key: int) -> bytes:
        """Return the state of a member that waits, pickled; see :class:`~tglo_lightning.search.Population`."""
        waiting = self._waiting.get(key)
        return pickle.dumps(waiting.state() if isinstance(waiting, Resumable) else None)

    def drop(self, key: int) -> None:
        """End the training of a member, and forget its weights."""
        self._finished.pop(key, None)
        if (population := self._waiting.pop(key, None)) is not None:
            population.close()


def _packed(population: Population) -> bytes:
    # A tensor that is sent as it is would be shared with the process that gets it
    return pickle.dumps({name: value.cpu() for name, value in population.weights(0).items()})
