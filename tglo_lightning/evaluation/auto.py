"""Which way of scoring a population is the fastest here, found by trying."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.arguments import choice
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.limits import brief
from tglo_lightning.evaluation.probing import TRIALS, recorded
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.evaluation.validation import Validation
from tglo_lightning.evaluation.vectorized import NotVectorizable, VectorizedEvaluator
from tglo_lightning.evaluation.workers.processes import ProcessEvaluator
from tglo_lightning.evaluation.workers.ray import RayEvaluator, require_ray
from tglo_lightning.module.messages import tell
from tglo_lightning.search import Budget, Criterion, Evaluation, LossSpec
from tglo_lightning.search.seeding import seed_all

__all__ = ["check_evaluator", "choose_evaluator", "seconds_per_candidate"]

# By the names that they go by in a result
EVALUATORS: dict[str, Callable[[], Any]] = {
    "trainer": TrainerEvaluator,
    "vectorized": VectorizedEvaluator,
    "sequential": lambda: VectorizedEvaluator(chunk_size=1),
    "processes": ProcessEvaluator,
    "processes-sequential": lambda: ProcessEvaluator(inner=VectorizedEvaluator(chunk_size=1)),
    "ray": RayEvaluator,
    "ray-sequential": lambda: RayEvaluator(inner=VectorizedEvaluator(chunk_size=1)),
}
TRIAL_STEPS = (2, 12)
# Candidates in a trial of an evaluator that trains them one by one
SINGLES = 2
TOLERANCE = 1e-3

Weights = dict[str, Tensor]


def check_evaluator(evaluator: Any) -> None:
    """Check the argument ``evaluator`` of a search.

    Raises:
        ValueError: an unknown name.
        TypeError: a class, or an object without ``setup``, ``start`` and ``close``.
        ImportError: Ray is named and not installed.
    """
    if isinstance(evaluator, str):
        choice("evaluator", evaluator, ("auto", *EVALUATORS))
        if evaluator.startswith("ray"):
            require_ray()
    elif isinstance(evaluator, type):
        raise TypeError(f"`evaluator` must be a name or an instance, such as {evaluator.__name__}(), got the class.")
    elif not all(callable(getattr(evaluator, method, None)) for method in ("setup", "start", "close")):
        raise TypeError(f"`evaluator` must be a name or have methods setup, start and close, got {evaluator!r}.")


def choose_evaluator(evaluator: Any, fit: InnerFit, population: int, *, processes: bool = True) -> Any:
    """The evaluator that ``evaluator`` names, set up for ``fit``.

    Where it is to train without Trainers and the module does not allow that, one warning says why, and nested Trainers
    take its place. ``"auto"`` tries worker processes only if ``processes``, and Ray never.

    Raises:
        TypeError, ValueError: see :func:`check_evaluator`.
    """
    check_evaluator(evaluator)
    if evaluator == "auto":
        chosen = _fastest(fit, population, processes)
    else:
        chosen = EVALUATORS[evaluator]() if isinstance(evaluator, str) else evaluator
        spreads = isinstance(chosen, ProcessEvaluator | RayEvaluator)
        core = chosen.inner if spreads else chosen
        if isinstance(core, VectorizedEvaluator) and (reason := obstacle(fit, core.chunk_size)) is not None:
            fallback = chosen.with_inner(TrainerEvaluator()) if spreads else TrainerEvaluator()
            warnings.warn(
                f"{type(fit.module).__name__} cannot be trained by the evaluator {chosen.name!r}: {reason}. Falling "
                f"back to {fallback.name!r}, nested Trainers.",
                stacklevel=2,
            )
            chosen = fallback
    chosen.setup(fit)
    return chosen


def obstacle(fit: InnerFit, chunk_size: int | None = None) -> str | None:
    """Return why the module cannot be trained as a population; ``None`` if it can.

    Two candidates are trained for two steps as a population, and one of them by a nested Trainer. If nothing draws
    random numbers, weights and fitness must agree.
    """
    trial = fit.with_budget(Budget(steps=2))
    criteria = _trial_criteria(fit)
    vectorized = VectorizedEvaluator(chunk_size=chunk_size)
    vectorized.strict = True
    vectorized.setup(trial)
    trainers = TrainerEvaluator()
    trainers.setup(trial)
    try:
        with closing(vectorized.start(criteria, seed=0)) as population:
            population.advance(population.length)
            scores = list(population.scores())
            if scores[0].error is not None:
                return scores[0].error
            if not math.isfinite(scores[0].fitness):
                return f"{fit.monitor!r} is not known after validation"
            for member, criterion in () if vectorized.stochastic else enumerate(criteria):
                with closing(trainers.start([criterion], seed=0)) as nested:
                    nested.advance(nested.length)
                    expected = next(nested.scores())
                    if expected.ok:
                        found = scores[member], population.weights(member)
                        return _difference(trial, criterion, found, (expected, nested.weights(0)))
    except NotVectorizable as reason:
        return str(reason)
    except Exception as error:
        return brief(error)
    return None


def _difference(
    fit: InnerFit, criterion: Criterion, found: tuple[Evaluation, Weights], expected: tuple[Evaluation, Weights]
) -> str | None:
    """Return what a population, with the weights ``own``, makes otherwise than a nested Trainer, if anything.

    Weights may differ where that changes nothing: of the gradient of a bias before BatchNorm, rounding noise, Adam
    makes a full step.
    """
    (score, own), (wanted, weights) = found, expected
    fitness: Any = score.fitness
    if differing := [name for name in own if name in weights and not _close(own[name], weights[name])]:
        pairs = zip(_logits(fit, criterion, own), _logits(fit, criterion, weights), strict=True)
        if not all(_close(*pair) for pair in pairs):
            return f"{differing[0]} differs from what the Trainer makes of it"
        validation = Validation(fit, criterion, seed=0)
        (fitness,) = validation.scores([0], lambda module, _: module.load_state_dict(weights, strict=False))
    if isinstance(fitness, float) and math.isclose(fitness, wanted.fitness, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return None
    return f"{fit.monitor!r} differs from what the Trainer makes of it"


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.cpu().double(), other.cpu().double(), rtol=TOLERANCE, atol=TOLERANCE)


def _logits(fit: InnerFit, criterion: Criterion, weights: Weights) -> list[Tensor]:
    """Return what reaches the losses in the first training batch."""
    with isolated(fit.generators):
        module = fit.candidate(criterion, seed=0)
        module.load_state_dict(weights, strict=False)
        recorders = recorded(fit, module)
        trainer = fit.with_budget(Budget(steps=1)).trainer()
        seed_all(0, fit.generators)
        trainer.fit(module, **fit.data())
    return [recorder.called_with[0][0] for recorder in recorders if recorder.called_with is not None]


def _trial_criteria(fit: InnerFit) -> list[Criterion]:
    family, thetas = TRIALS[fit.kind]
    return [Criterion((LossSpec(family, theta),) * len(fit.slots)) for theta in thetas]


def _fastest(fit: InnerFit, population: int, processes: bool = True) -> Any:
    """Time each valid evaluator on a few steps, and take the one that will need the least for the whole budget."""
    tell("TaylorGLO tries which evaluator is the fastest here.")
    reason = obstacle(fit)
    names = ["trainer", "processes"] if reason else ["sequential", "processes-sequential", "vectorized"]
    cost: dict[str, float] = {}
    for name in names:
        evaluator = EVALUATORS[name]()
        size = min(population, SINGLES) if name == names[0] else population
        if isinstance(evaluator, ProcessEvaluator):
            if not processes:
                continue
            evaluator.setup(fit)
            if (size := evaluator.count()) == 1:
                continue
        cost[name] = seconds_per_candidate(evaluator, fit, size)
    name = min(cost, key=cost.__getitem__)
    figures = ", ".join(f"{option} {seconds:.2g} s" for option, seconds in cost.items())
    why = f"; no candidates in one pass, for {reason}" if reason else ""
    tell(f"TaylorGLO: evaluator {name!r}, the fastest here (a candidate: {figures}){why}.")
    chosen = EVALUATORS[name]()
    chosen.seconds = cost[name]
    return chosen


def seconds_per_candidate(evaluator: Any, fit: InnerFit, size: int) -> float:
    """Estimate the seconds that a candidate takes for the budget, from short trainings of ``size`` candidates.

    Infinite if it fails.
    """
    # As far as they can be foreseen
    steps = fit.budget.steps or (fit.budget.epochs or 1) * fit.epoch_steps()
    few, many = (min(steps, number) for number in TRIAL_STEPS)
    criteria = _trial_criteria(fit)[:1] * size
    times = []
    try:
        # The first run warms up
        for number in (few, few, many):
            evaluator.setup(fit.with_budget(Budget(steps=number)))
            started = time.perf_counter()
            population = evaluator.start(criteria, seed=0)
            population.advance(population.length)
            evaluations = list(population.scores())
            population.close()
            times.append((time.perf_counter() - started) / size)
            if any(evaluation.status == "crashed" for evaluation in evaluations):
                return math.inf
    except Exception:
        return math.inf
    finally:
        evaluator.close()
    return times[1] + max(times[2] - times[1], 0.0) / max(many - few, 1) * (steps - few)
