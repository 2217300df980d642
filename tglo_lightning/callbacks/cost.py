"""What a search will cost, told before it begins."""

from __future__ import annotations

import math
from typing import Any

from tglo_lightning.evaluation import InnerFit, seconds_per_candidate
from tglo_lightning.reporting.numbers import duration
from tglo_lightning.search import Budget, SearchSettings
from tglo_lightning.search.checks import CHECKS
from tglo_lightning.wording import counted


def cost(settings: SearchSettings, evaluator: Any, fit: InnerFit, *, measure: bool) -> str:
    """Return the number of trainings and their length in words, and the time they take, if the evaluator knows by
    ``seconds`` how long one takes; to ``measure`` it otherwise, a short trial is timed.
    """
    assert isinstance(settings.budget, Budget)
    length = counted(settings.budget.length, settings.budget.unit[:-1])
    words = f"up to {counted(settings.trainings, 'training')} of {length} each"
    if settings.budget.score == "best":
        words += f", the best of {CHECKS} checks counts"
    seconds = getattr(evaluator, "seconds", None)
    if seconds is None and measure:
        seconds = seconds_per_candidate(evaluator, fit, settings.population)
        evaluator.setup(fit)
    if seconds is None or not math.isfinite(seconds):
        return words
    trainings = settings.trainings
    if evaluator.shares_passes and trainings > settings.candidates:
        # A pass of the finals, with few members, takes about as long as one of a generation
        trainings = settings.candidates + (settings.finals.seeds + settings.finals.confirm) * settings.population
    return f"{words}, about {duration(seconds * trainings)} with the evaluator {evaluator.name!r}"


def takes_best(trainer: Any, monitor: str) -> bool:
    """Whether a callback of the Trainer stops at, or keeps, the best epoch by this metric."""
    watching = ("EarlyStopping", "ModelCheckpoint")
    return any(
        getattr(callback, "monitor", None) == monitor and getattr(callback, "save_top_k", 1) != 0
        for callback in trainer.callbacks
        if any(base.__name__ in watching for base in type(callback).__mro__)
    )
