"""Which moment of a training counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tglo_lightning.search.evaluator import Evaluation, Population

CHECKS = 10
"""Checks in a training whose best moment counts."""


class BestCheck:
    """A population that is scored every tenth of its training; the best score of a member counts.

    That is what early stopping, or a checkpoint of the best epoch, makes of a training.
    """

    def __init__(self, population: Population, mode: str) -> None:
        self._population = population
        self._sign = -1.0 if mode == "max" else 1.0
        self._best: dict[int, Evaluation] = {}

    def __getattr__(self, name: str) -> Any:
        # The rest is that of the population. The weights of a member need not be those of its best check
        return getattr(self._population, name)

    def advance(self, n: int) -> None:
        """Train on, and score the members at each check on the way."""
        every = -(-self.length // CHECKS)
        end = min(self.trained + n, self.length)
        while self.trained < end:
            self._population.advance(min((self.trained // every + 1) * every, end) - self.trained)
            for member, score in zip(list(self.members), self._population.scores(), strict=True):
                before = self._best.get(member)
                if before is None or not before.ok or (score.ok and self._cost(score) < self._cost(before)):
                    self._best[member] = score
                else:
                    self._best[member] = replace(before, seconds=score.seconds)

    def scores(self) -> Iterator[Evaluation]:
        """Yield the best score of each member so far."""
        yield from (self._best[member] for member in self.members)

    def _cost(self, score: Evaluation) -> float:
        return self._sign * score.fitness
