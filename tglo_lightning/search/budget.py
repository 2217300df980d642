"""How long a candidate trains, and what ends it early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tglo_lightning.arguments import choice, entries, integer, number, optional
from tglo_lightning.search.plain import to_plain


@dataclass(frozen=True)
class Budget:
    """How long a candidate trains: whole epochs or optimizer steps, and within which limits.

    Attributes:
        epochs: epochs, at least 1. With neither epochs nor steps a candidate trains as long as the fit.
        steps: optimizer steps in place of epochs, at least 1.
        timeout: seconds of wall-clock time, validation included, after which a candidate is given up; for candidates
            that train in one pass as many for each. Checked after every batch; the module's own loss has no limit.
        min_fitness_after: ``(n, value)``: after ``n`` epochs or steps a candidate whose metric is worse than ``value``
            is rejected. The others train on. The module's own loss is never rejected.
        max_time: seconds of wall-clock time for the whole search. It proposes no further generation when that, and the
            finals after it, would take longer; the first generation and the finals are always trained.
        score: which moment of a training counts: ``"last"``, its end; ``"best"``, the best of ten checks on the way,
            as early stopping or a checkpoint of the best epoch would have it. ``None``: the best if the fit has a
            callback that takes the best epoch by the same metric, else the last.
        callbacks: Lightning callbacks for the trainings of candidates; each training gets a copy.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name; both ``epochs`` and ``steps``.
    """

    epochs: int | None = None
    steps: int | None = None
    timeout: float | None = None
    min_fitness_after: tuple[int, float] | None = None
    max_time: float | None = None
    score: str | None = None
    callbacks: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("`budget` must have one of `epochs` and `steps`, not both.")
        optional(choice, "score", self.score, ("last", "best"))
        # Plain numbers, which a journal can hold
        vars(self).update({name: optional(integer, name, getattr(self, name), 1) for name in ("epochs", "steps")})
        limits = {name: optional(number, name, getattr(self, name), above=0) for name in ("timeout", "max_time")}
        vars(self).update(limits, callbacks=tuple(entries("callbacks", self.callbacks, "a list of callbacks")))
        given = self.min_fitness_after
        if given is None:
            return
        if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
            raise TypeError(f"`min_fitness_after` must be a pair (n, value), got {given!r}.")
        if not self.length:
            raise ValueError("`min_fitness_after` needs a budget of `epochs` or `steps`.")
        after = integer("min_fitness_after[0]", given[0], 1, self.length - 1)
        vars(self).update(min_fitness_after=(after, number("min_fitness_after[1]", given[1])))

    @property
    def length(self) -> int:
        """Epochs or steps of a whole training; 0 if that is not said."""
        return self.epochs or self.steps or 0

    @property
    def unit(self) -> str:
        """``"epochs"`` or ``"steps"``."""
        return "steps" if self.epochs is None else "epochs"

    def to_dict(self) -> dict[str, Any]:
        """Return the length and the limits as plain values."""
        names = ("epochs", "steps", "timeout", "score", "min_fitness_after")
        return {name: to_plain(getattr(self, name)) for name in names}


def as_budget(budget: Budget | int | None) -> Budget:
    """Return a budget, a plain number meaning epochs and ``None`` no limit.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    if isinstance(budget, Budget):
        return budget
    return Budget(epochs=optional(integer, "budget", budget, 1))
