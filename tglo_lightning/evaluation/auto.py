"""Which way of scoring a population is the fastest here, found by trying."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tglo_lightning.evaluation.inner import Budget, InnerFit
from tglo_lightning.evaluation.messages import tell
from tglo_lightning.evaluation.processes import ProcessEvaluator
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.evaluation.vectorized import NotVectorizable, VectorizedEvaluator

__all__ = ["check_evaluator", "choose_evaluator"]

EVALUATORS: dict[str, Callable[[], Any]] = {
    "trainer": TrainerEvaluator,
    "vectorized": VectorizedEvaluator,
    "processes": ProcessEvaluator,
}
# Losses for trials: cross-entropy's Taylor expansion of order 3 at h = 1/2, and a weaker one
TRIAL_THETAS = ([0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -2.0, 0.0], [0.0, 0.5, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0])
TRIAL_STEPS = (2, 12)
TOLERANCE = 1e-3


def check_evaluator(evaluator: Any) -> None:
    """Check the argument ``evaluator`` of a search.

    Raises:
        ValueError: an unknown name.
        TypeError: an object without ``setup``, ``evaluate`` and ``close``.
    """
    if isinstance(evaluator, str):
        if evaluator != "auto" and evaluator not in EVALUATORS:
            raise ValueError(
                f"`evaluator` must be one of 'auto', {', '.join(map(repr, EVALUATORS))}, got {evaluator!r}."
            )
    elif not all(callable(getattr(evaluator, method, None)) for method in ("setup", "evaluate", "close")):
        raise TypeError(f"`evaluator` must be a name or have methods setup, evaluate and close, got {evaluator!r}.")


def choose_evaluator(evaluator: Any, fit: InnerFit, population: int) -> Any:
    """The evaluator that ``evaluator`` names, set up for ``fit``.

    Where the population was to be vectorised and the module does not allow it, one warning says why, and nested
    Trainers take its place.
    """
    check_evaluator(evaluator)
    if evaluator == "auto":
        chosen = _fastest(fit, population)
    else:
        chosen = EVALUATORS[evaluator]() if isinstance(evaluator, str) else evaluator
        if isinstance(chosen, VectorizedEvaluator) and (reason := obstacle(fit, chosen)) is not None:
            warnings.warn(
                f"{type(fit.module).__name__} cannot be trained as a population: {reason}. Falling back to nested "
                "Trainers.",
                stacklevel=2,
            )
            chosen = TrainerEvaluator()
    chosen.setup(fit)
    return chosen


def obstacle(fit: InnerFit, evaluator: VectorizedEvaluator | None = None) -> str | None:
    """Why the module cannot be trained as a population; ``None`` if it can.

    Two candidates are trained for two steps, once as a population and once with nested Trainers. Where nothing draws
    random numbers the weights must agree.
    """
    trial = fit.with_budget(Budget(steps=2))
    vectorized = VectorizedEvaluator() if evaluator is None else evaluator
    vectorized.setup(trial)
    reference = TrainerEvaluator()
    reference.setup(trial)
    try:
        weights = vectorized.train_population(TRIAL_THETAS, seed=0)
        fitness = [evaluation.fitness for evaluation in vectorized.evaluate(TRIAL_THETAS[:1], seed=0)]
    except NotVectorizable as reason:
        return str(reason)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    if not math.isfinite(fitness[0]):
        return f"{fit.monitor!r} is not known after validation"
    if vectorized.stochastic:
        return None
    for theta, candidate in zip(TRIAL_THETAS, weights, strict=True):
        expected = dict(reference.train(list(theta), seed=0).state_dict())
        for name, value in candidate.items():
            if name in expected and not torch.allclose(
                value.cpu().double(), expected[name].cpu().double(), rtol=TOLERANCE, atol=TOLERANCE
            ):
                return f"{name} differs from what the Trainer makes of it"
    return None


def _fastest(fit: InnerFit, population: int) -> Any:
    """Time each valid evaluator on a few steps, and take the one that will need the least for the whole budget."""
    reason = obstacle(fit)
    loop = TrainerEvaluator() if reason else VectorizedEvaluator(chunk_size=1)
    options: dict[str, tuple[Any, int]] = {}
    if reason is None:
        options["vectorized"] = (VectorizedEvaluator(), population)
        options["vectorized, one by one"] = (loop, 1)
    else:
        options["trainer"] = (TrainerEvaluator(), 1)
    processes = ProcessEvaluator(inner=loop)
    processes.setup(fit)
    if processes.count() > 1:
        options["processes"] = (processes, processes.count())
    steps = _budget_steps(fit)
    cost = {name: _seconds(evaluator, fit, size, steps) for name, (evaluator, size) in options.items()}
    name = min(cost, key=lambda option: cost[option])
    figures = ", ".join(f"{option} {seconds:.3g} s" for option, seconds in cost.items())
    why = f"; it cannot be vectorised: {reason}" if reason else ""
    tell(f"TaylorGLO scores candidates by `{name}`, the fastest here (a candidate: {figures}){why}.")
    return options[name][0]


def _budget_steps(fit: InnerFit) -> int:
    """Optimizer steps of a candidate, as far as they can be foreseen."""
    if fit.budget.steps is not None:
        return fit.budget.steps
    return max(1, fit.budget.epochs or 1) * fit.epoch_steps()


def _seconds(evaluator: Any, fit: InnerFit, population: int, steps: int) -> float:
    """Seconds a candidate that ``evaluator`` will take for ``steps`` steps, from two short trainings."""
    few, many = TRIAL_STEPS
    thetas: Sequence[list[float]] = [list(TRIAL_THETAS[0])] * population
    times = []
    try:
        for number in (few, few, many):
            evaluator.setup(fit.with_budget(Budget(steps=number)))
            started = time.perf_counter()
            evaluations = list(evaluator.evaluate(thetas, seed=0))
            times.append((time.perf_counter() - started) / population)
            if any(evaluation.status == "crashed" for evaluation in evaluations):
                return math.inf
    finally:
        evaluator.close()
    # The first run warms up
    slope = max(times[2] - times[1], 0.0) / (many - few)
    return times[1] + slope * max(steps - few, 0)
