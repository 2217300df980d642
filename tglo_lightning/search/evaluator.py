"""How criteria are scored: the protocols of evaluators and populations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.plain import Plain


@dataclass(frozen=True)
class Evaluation(Plain):
    """The score of one training.

    Attributes:
        fitness: the monitored metric; NaN unless ``status`` is ``"ok"``.
        status: ``"ok"``, ``"diverged"`` (loss, weights or metric not finite), ``"crashed"`` (an exception),
            ``"timeout"`` (beyond the budget's time limit) or ``"rejected"`` (not good enough halfway).
        seconds: wall-clock time of the training so far.
        error: what went wrong, if anything did.
    """

    fitness: float
    status: str = "ok"
    seconds: float = 0.0
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the fitness counts."""
        return self.status == "ok" and math.isfinite(self.fitness)

    @property
    def outcome(self) -> str:
        """``status``, or ``"diverged"`` if an ``"ok"`` comes with a fitness that is not finite."""
        return "diverged" if self.status == "ok" and not self.ok else self.status


class Population(Protocol):
    """Networks in training side by side, one for each criterion.

    All start from the same weights and see the same batches. A population that is advanced in pieces ends bit-identical
    to one that is advanced at once.

    Attributes:
        length: epochs or optimizer steps of a whole training, whichever the budget counts.
        trained: epochs or steps so far.
        members: members still in training, as positions among the criteria that the population was started with.
    """

    length: int
    trained: int
    members: list[int]

    def advance(self, n: int) -> None:
        """Train on for ``n`` epochs or steps, at most to the end. The work may wait until scores are asked for."""

    def scores(self) -> Iterator[Evaluation]:
        """Validate the members; yield one evaluation for each, in order, as soon as it is known."""
        ...

    def keep(self, members: Sequence[int]) -> None:
        """Keep these members; end the training of the others and free their memory."""

    def weights(self, member: int) -> dict[str, Any]:
        """Return parameters and buffers of one member by name, as it stands."""
        ...

    def close(self) -> None:
        """End all trainings and free their memory."""


@runtime_checkable
class Resumable(Protocol):
    """A population from which another process can go on; the evaluators of TaylorGLO start such ones."""

    def state(self) -> dict[str, Any] | None:
        """Return what the members are made of at the start of this epoch, as tensors and plain values.

        Each start is told once. ``None`` where it is not known, such as for a module that counts what it has seen.
        """

    def restore(self, state: dict[str, Any]) -> None:
        """Before anything has been trained, go to where :meth:`state` was called.

        Raises:
            KeyError, ValueError: a state of another kind of population, which leaves this one as it was.
        """


class Evaluator(Protocol):
    """Starts populations.

    Attributes:
        name: name in results and journals.
        shares_passes: whether members share passes, so that the last bits of a result depend on who trains beside it.
    """

    name: str
    shares_passes: bool

    def start(self, criteria: Sequence[Criterion], seed: int) -> Population:
        """Start one training for each criterion; weights and batches follow from ``seed`` alone."""
        ...
