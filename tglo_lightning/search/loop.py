"""The outer loop: draw, refuse, evaluate, tell; then the finalists against the original loss."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from tglo_lightning.arguments import choice, integer, number
from tglo_lightning.search.result import Candidate, Evaluation, Finalist, SearchResult
from tglo_lightning.search.space import CONSTRAINTS, PARAMETERIZATIONS, Constraint, Space, feasibility
from tglo_lightning.search.strategy import CMAES
from tglo_lightning.wording import counted

__all__ = ["MODES", "Evaluator", "Listener", "SearchError", "SearchSettings", "search"]

MODES = ("max", "min")
# Some seconds of drawing: who meets it has a constraint that nothing fulfils
MAX_REDRAWS = 10_000
# How often a generation without one valid candidate is drawn again, each time from a distribution of half the width
RETRIES = 3
SHRINKAGE = 0.5


class SearchError(RuntimeError):
    """No candidate of a generation could be trained, however near to the origin."""


class Evaluator(Protocol):
    """How a population is scored."""

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterable[Evaluation]:
        """Train and score one network for each ``theta``; ``None`` stands for the original loss.

        All of them start from the same weights and see the same batches: both follow from ``seed`` alone. Evaluations
        come in the order of ``thetas``, each as soon as it is known. A candidate that fails is an evaluation too.
        """
        ...


class Listener(Protocol):
    """What may follow a search as it runs."""

    def on_evaluation(self, stage: str, evaluation: Evaluation, best: float) -> None:
        """After each training, ``stage`` is ``"generation"`` or ``"final"``; ``best`` is the best fitness so far."""

    def on_generation(self, metrics: dict[str, float]) -> None:
        """After each generation, with the numbers to log, ``generation`` among them."""


@dataclass(frozen=True)
class SearchSettings:
    """Arguments of a search, checked.

    Attributes:
        generations: number of generations, at least 1.
        population: candidates a generation, at least 2.
        order: order of the polynomial, at least 2.
        sigma: initial step size of CMA-ES, above 0.
        finalists: evaluated candidates that are trained again, at least 1.
        repeats: fresh seeds for the finalists and the original loss, at least 1.
        constraint: ``"exact"``, ``"stable"``, ``"published"``, ``None`` or a function of ``theta`` that tells whether
            to train it.
        parameterization: ``"full"``, ``"minimal"`` or ``"smoothed_ce"``, see
            :class:`~tglo_lightning.search.space.Space`.
        seed: seed of the draws and, with the number of the generation, of every training; at least 0.
        losses: losses that are searched for together, one vector for all; at least 1.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name.
    """

    generations: int = 10
    population: int = 20
    order: int = 3
    sigma: float = 1.2
    finalists: int = 5
    repeats: int = 5
    constraint: str | Constraint | None = "exact"
    parameterization: str = "minimal"
    seed: int = 0
    losses: int = 1

    def __post_init__(self) -> None:
        lowest = {"generations": 1, "population": 2, "order": 2, "finalists": 1, "repeats": 1, "seed": 0, "losses": 1}
        # Plain numbers, or a checkpoint that holds them cannot be read with `weights_only=True`
        for name, least in lowest.items():
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        object.__setattr__(self, "sigma", number("sigma", self.sigma, above=0))
        if not (self.constraint is None or callable(self.constraint)):
            choice("constraint", self.constraint, CONSTRAINTS, ", None or a function")
        choice("parameterization", self.parameterization, PARAMETERIZATIONS)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a constraint that is a function by its name."""
        values = asdict(self)
        if callable(self.constraint):
            values["constraint"] = getattr(self.constraint, "__qualname__", repr(self.constraint))
        return values

    def training_seed(self, stage: int, number: int) -> int:
        """Seed of the trainings of generation ``number`` (stage 0) or final round ``number`` (stage 1)."""
        return int(np.random.SeedSequence([self.seed, stage, number]).generate_state(1)[0])


def search(
    evaluator: Evaluator,
    settings: SearchSettings,
    *,
    num_classes: int,
    monitor: str = "fitness",
    mode: str = "max",
    original_name: str = "original",
    listener: Listener | None = None,
) -> SearchResult:
    """Metalearn a loss.

    CMA-ES draws ``settings.generations`` populations from ``theta = 0``; draws that the constraint refuses are redrawn
    before anything is trained. A generation of which no candidate could be trained is drawn again, up to 3 times, from
    a distribution of half the width each. The best evaluated candidates, never the untested mean of the distribution,
    are then trained again from fresh seeds, the original loss beside them, and the best mean wins.

    Args:
        evaluator: trains and scores; see :class:`Evaluator`.
        settings: the arguments of the search.
        num_classes: classes of the task, for the constraint.
        monitor: name of the metric, for the result.
        mode: ``"max"`` or ``"min"``.
        original_name: name of the original loss, for the result.
        listener: followed by progress bars and loggers.

    Raises:
        ValueError: an argument out of range, or a constraint that refuses 10,000 draws in a row.
        SearchError: no candidate of a generation could be trained.
    """
    choice("mode", mode, MODES)
    num_classes = integer("num_classes", num_classes, 2)
    started = time.perf_counter()
    sign = -1.0 if mode == "max" else 1.0
    space = Space(settings.parameterization, settings.order, settings.losses)
    feasible = feasibility(settings.constraint, num_classes, settings.losses)
    strategy = CMAES(space.dimension, settings.sigma, settings.population, settings.seed)

    history: list[Candidate] = []
    infeasible: list[int] = []
    best = math.nan

    def improve(evaluation: Evaluation) -> float:
        if evaluation.ok and not sign * evaluation.fitness >= sign * best:
            return evaluation.fitness
        return best

    for generation in range(settings.generations):
        population: list[Candidate] = []
        refused_in_all = 0
        while not any(candidate.status == "ok" for candidate in population):
            if len(population) > RETRIES * settings.population:
                raise SearchError(_reason(population))
            if population:
                strategy.shrink(SHRINKAGE)
                warnings.warn(
                    f"No candidate of generation {generation} could be trained; drawing it again with half the sigma, "
                    f"{strategy.sigma:.3g}.",
                    stacklevel=2,
                )
            vectors, thetas, refused = _draw(strategy, space, feasible, settings.population)
            refused_in_all += refused
            evaluations = []
            for evaluation in evaluator.evaluate(thetas, settings.training_seed(0, generation)):
                evaluations.append(evaluation)
                best = improve(evaluation)
                if listener is not None:
                    listener.on_evaluation("generation", evaluation, best)
            population += [
                Candidate(generation, index, theta, e.fitness if e.ok else math.nan, e.outcome, e.seconds, e.error)
                for index, (theta, e) in enumerate(zip(thetas, evaluations, strict=True), start=len(population))
            ]
        history += population
        infeasible.append(refused_in_all)
        strategy.tell(vectors, [sign * e.fitness if e.ok else math.nan for e in evaluations])
        if listener is not None:
            listener.on_generation(_metrics(population, best, refused_in_all, strategy.sigma, sign))

    finalists, original = _finals(evaluator, settings, history, sign, original_name, best, listener)
    finalists, winner, kept = decide(finalists, original, mode)
    return SearchResult(
        kept=kept,
        monitor=monitor,
        mode=mode,
        best=winner,
        original=original,
        finalists=finalists,
        history=history,
        infeasible=sum(infeasible),
        seconds=time.perf_counter() - started,
        settings=settings.to_dict() | {"num_classes": num_classes},
        refused=infeasible,
    )


def _draw(
    strategy: CMAES, space: Space, feasible: Callable[[list[list[float]]], list[bool]], population: int
) -> tuple[list[list[float]], list[list[float]], int]:
    """A population of feasible vectors, what they stand for, and the number of draws refused on the way."""
    vectors: list[list[float]] = []
    thetas: list[list[float]] = []
    refused = in_a_row = 0
    while len(vectors) < population:
        drawn = strategy.ask(population - len(vectors))
        meant = space.thetas(drawn)
        for vector, theta, accepted in zip(drawn, meant, feasible(meant), strict=True):
            if accepted:
                vectors.append(vector)
                thetas.append(theta)
                in_a_row = 0
            else:
                refused += 1
                in_a_row += 1
        if in_a_row >= MAX_REDRAWS:
            raise ValueError(
                f"`constraint` refused {in_a_row:,} draws in a row. Loosen it, enlarge `sigma` or change "
                "`parameterization`."
            )
    return vectors, thetas, refused


def _reason(population: Sequence[Candidate]) -> str:
    """Why none of ``population`` could be trained."""
    reasons = Counter(f"{c.status}: {c.error}" if c.error else c.status for c in population)
    reason, count = reasons.most_common(1)[0]
    others = f" and {counted(len(reasons) - 1, 'other reason')}" if len(reasons) > 1 else ""
    return (
        f"None of {len(population)} candidates of generation {population[0].generation} could be trained, with smaller "
        f"and smaller steps. Most often ({count} of {len(population)}{others}): {reason}"
    )


def _finals(
    evaluator: Evaluator,
    settings: SearchSettings,
    history: Sequence[Candidate],
    sign: float,
    original_name: str,
    best: float,
    listener: Listener | None,
) -> tuple[list[Finalist], Finalist]:
    """The best evaluated candidates and the original loss, trained from the same fresh seeds."""
    valid = sorted((c for c in history if c.status == "ok"), key=lambda c: sign * c.fitness)[: settings.finalists]
    finalists = [
        Finalist(c.theta, f"finalist {rank}", [], c.fitness, c.generation, settings.losses)
        for rank, c in enumerate(valid, start=1)
    ]
    original = Finalist(None, original_name)
    entrants = [*finalists, original]
    for repeat in range(settings.repeats):
        evaluations = evaluator.evaluate([e.theta for e in entrants], settings.training_seed(1, repeat))
        for entrant, evaluation in zip(entrants, evaluations, strict=True):
            entrant.add(evaluation)
            if listener is not None:
                listener.on_evaluation("final", evaluation, best)
    return finalists, original


def decide(finalists: Sequence[Finalist], original: Finalist, mode: str) -> tuple[list[Finalist], Finalist | None, str]:
    """The finalists, best first; the best of them, if its mean is finite; and which loss is kept."""
    sign = -1.0 if mode == "max" else 1.0
    ranked = sorted(finalists, key=lambda f: sign * f.mean if math.isfinite(f.mean) else math.inf)
    winner = ranked[0] if ranked and math.isfinite(ranked[0].mean) else None
    beaten = winner is not None and not original.errors and not sign * winner.mean >= sign * original.mean
    return ranked, winner, "metalearned" if beaten else "original"


def _metrics(population: Sequence[Candidate], best: float, refused: int, sigma: float, sign: float) -> dict[str, float]:
    """What is logged of a generation; fitness entries are left out where no candidate is valid."""
    valid = [c for c in population if c.status == "ok"]
    metrics = {
        "generation": population[0].generation,
        "sigma": sigma,
        "failed": len(population) - len(valid),
        "infeasible": refused,
        "feasible_share": len(population) / (len(population) + refused),
        "seconds": sum(c.seconds for c in population),
    }
    if valid:
        fitness = [c.fitness for c in valid]
        leader = min(valid, key=lambda c: sign * c.fitness)
        metrics |= {"fitness_best": leader.fitness, "fitness_mean": fmean(fitness), "fitness_best_so_far": best}
        metrics["fitness_worst"] = max(fitness, key=lambda value: sign * value)
        metrics |= {f"theta_{i}": value for i, value in enumerate(leader.theta)}
    return metrics


def count_trainings(settings: SearchSettings) -> int:
    """Trainings that a search takes, the original loss's included."""
    return settings.generations * settings.population + settings.repeats * (settings.finalists + 1)
