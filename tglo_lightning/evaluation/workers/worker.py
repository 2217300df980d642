"""What whoever trains candidates for a search has in common: processes, ranks and Ray's workers."""

from __future__ import annotations

import time
from typing import Any

from tglo_lightning.evaluation.limits import failed
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.search import Evaluation

__all__ = ["score", "spread_name", "unpicklable"]


def score(inner: Any, theta: list[float] | None, seed: int) -> Evaluation:
    """Train one candidate with the evaluator ``inner``; an exception is an evaluation too."""
    started = time.perf_counter()
    try:
        evaluation: Evaluation = next(iter(inner.evaluate([theta], seed)))
    except Exception as crash:
        return failed(crash, time.perf_counter() - started)
    return evaluation


def spread_name(kind: str, inner: Any) -> str:
    """``kind``, with the name of the evaluator that the workers use unless that is the Trainer's."""
    name = getattr(inner, "name", type(inner).__name__)
    return kind if name == TrainerEvaluator.name else f"{kind}-{name}"


def unpicklable(who: str, error: Exception) -> TypeError:
    """The error to raise where something cannot be sent to a worker; ``who`` sends it, and why."""
    return TypeError(
        f"{who}, so the module, the data, the callbacks and `init` must be picklable: {error}. Define their classes "
        "and functions at the top level of a file, or use another evaluator."
    )
