"""The search: ask, start, advance, scores, tell; then the finals."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, Protocol

from tglo_lightning.search.checks import BestCheck
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.evaluator import Evaluation, Evaluator, Population
from tglo_lightning.search.journal import Journal, JournalError
from tglo_lightning.search.result import Candidate, SearchResult
from tglo_lightning.search.settings import Objective, SearchSettings
from tglo_lightning.search.strategy import Strategy
from tglo_lightning.wording import counted

# How often a generation without one valid candidate is drawn again
RETRIES = 3

Look = Callable[[Population, int], dict[str, float] | None]
Training = Callable[[Population], Iterable[Evaluation]]


class SearchError(RuntimeError):
    """No candidate of a generation could be trained."""


class Listener(Protocol):
    """Follows a search as it runs."""

    def on_evaluation(self, stage: str, evaluation: Evaluation, best: float) -> None:
        """After each training; ``stage`` is ``"generation"``, ``"choice"`` or ``"confirmation"``, ``best`` the best
        fitness so far.
        """

    def on_generation(self, metrics: dict[str, float]) -> None:
        """After each generation, with the numbers to log, ``generation`` among them."""


def search(
    evaluator: Evaluator,
    settings: SearchSettings,
    objective: Objective,
    *,
    journal: Journal | None = None,
    listener: Listener | None = None,
    check: Callable[[], None] = lambda: None,
    look: Look | None = None,
) -> SearchResult:
    """Metalearn a loss.

    The strategy proposes ``settings.generations`` populations; a generation of which no candidate could be trained is
    proposed again, up to 3 times, if the strategy knows how. Then the finals choose among the evaluated candidates and
    confirm the choice against the module's own loss.

    Args:
        journal: records every finished training and the strategy's state after each generation. A search that was
            killed goes on from there, with the same result.
        listener: followed by progress bars and loggers.
        check: called before a training is recorded; raises if the search is to end.
        look: called with a population and the member that was trained with the module's own loss, the first time there
            is one; what it returns becomes ``result.diagnosis``.

    Raises:
        ValueError: a constraint that rejects 10,000 draws in a row.
        SearchError: no candidate of a generation could be trained.
        JournalError: the journal holds other candidates than this search proposes.
    """
    return Search(evaluator, settings, objective, journal, listener, check, look).run()


@dataclass
class Search:
    """A search while it runs, see :func:`search`; ``elapsed_before``: seconds of an earlier part of it."""

    evaluator: Evaluator
    settings: SearchSettings
    objective: Objective
    journal: Journal | None = None
    listener: Listener | None = None
    check: Callable[[], None] = lambda: None
    look: Look | None = None
    elapsed_before: float = 0.0
    history: list[Candidate] = field(default_factory=list, init=False)
    rejected: list[int] = field(default_factory=list, init=False)
    best: float = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        self.strategy: Strategy = self.settings.strategy
        self.sign = -1.0 if self.objective.mode == "max" else 1.0
        self._path = self.journal and self.journal.path
        self.diagnosis = self._recall(("diagnosis",))
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of the search, those before a kill included."""
        return self.elapsed_before + time.monotonic() - self.started

    def run(self) -> SearchResult:
        """Search; see :func:`search`."""
        settings, objective = self.settings, self.objective
        self.strategy.mode = objective.mode
        space = settings.space.for_task(objective.num_classes, objective.priors)
        self.strategy.start(space, settings.population, settings.seed)
        begun = self._restore()
        # A search that goes on may be asked for more generations
        asked = settings.to_dict()
        if (self._recall(("settings",)) or {}).get("settings") != asked:
            self._record(("settings",), settings=asked)
        for generation in range(begun, settings.generations):
            if generation and self._out_of_time(generation):
                break
            self._generation(generation)
        outcome = settings.finals.run(self.final, self.history, objective.original, objective.mode)
        return SearchResult(
            kept="metalearned" if outcome.replaces else "original",
            monitor=objective.monitor,
            mode=objective.mode,
            best=outcome.best,
            original=outcome.original,
            finalists=tuple(outcome.finalists),
            history=tuple(self.history),
            p_value=outcome.p_value,
            rejected=tuple(self.rejected),
            seconds=self.elapsed,
            diagnosis=self.diagnosis and self.diagnosis["figures"],
            settings=objective.notes(settings, self.evaluator.name),
        )

    def final(self, stage: str, number: int, criteria: Sequence[Criterion]) -> list[Evaluation]:
        """Train criteria from one seed of the finals; see :meth:`Finals.run`."""
        # By what is trained, so that a search with more generations need not train it again
        return self._train(stage, number, [criterion.digest for criterion in criteria], criteria)

    def _recall(self, key: Sequence[str | int]) -> dict[str, Any] | None:
        return None if self.journal is None else self.journal.recall(key)

    def _record(self, key: Sequence[str | int], **values: Any) -> None:
        if self.journal is not None:
            self.journal.append(key, values)

    def _out_of_time(self, generation: int) -> bool:
        """Whether another generation and the finals would take longer than the whole search may."""
        limit, key = self.settings.budget.max_time, ("time", generation)
        if limit is None:
            return False
        # A search that is resumed stops where it stopped
        if self._recall(key) == {"key": list(key), "max_time": limit}:
            return True
        needed = self.settings.population + self.settings.finals.trainings
        if self.elapsed * (1 + needed / len(self.history)) <= limit:
            return False
        self._record(key, max_time=limit)
        return True

    def _restore(self) -> int:
        """Take over the generations that the journal holds whole; return the number of the next one."""
        generation, state = 0, None
        while (record := self._recall(("state", generation))) is not None:
            for index in range(record["candidates"]):
                entry = self._recall(("generation", generation, index))
                if entry is None:
                    raise JournalError(f"{self._path} lacks candidate {index} of generation {generation}.")
                evaluation = Evaluation.from_dict(entry)
                self._note("generation", evaluation)
                criterion = Criterion.from_dict(entry["criterion"])
                self.history.append(Candidate.of(generation, index, criterion, evaluation))
            self.rejected.append(record["rejected"])
            self.elapsed_before = record["elapsed"]
            if self.listener is not None:
                self.listener.on_generation(record["metrics"])
            state = record["state"]
            generation += 1
        if state is not None:
            self.strategy.load_state_dict(state)
            self.strategy.rejected = sum(self.rejected)
        return generation

    def _generation(self, generation: int) -> None:
        strategy, name = self.strategy, type(self.strategy).__name__
        population: list[Candidate] = []
        rejected_before = strategy.rejected
        while not any(candidate.status == "ok" for candidate in population):
            if population:
                if len(population) > RETRIES * self.settings.population or not strategy.retry():
                    raise SearchError(_reason(population))
                warnings.warn(
                    f"No candidate of generation {generation + 1} could be trained; drawing it again nearer to the "
                    "centre of the space.",
                    stacklevel=4,
                )
            criteria = strategy.ask()
            if not criteria or not all(isinstance(criterion, Criterion) for criterion in criteria):
                raise TypeError(f"{name}.ask() must return criteria, got {criteria!r}.")
            places = range(len(population), len(population) + len(criteria))
            evaluations = self._train("generation", generation, places, criteria, self._training())
            population += map(partial(Candidate.of, generation), places, criteria, evaluations)
        self.history += population
        self.rejected.append(strategy.rejected - rejected_before)
        strategy.tell([self.sign * e.fitness if e.ok else math.nan for e in evaluations])
        metrics = self._metrics(population)
        if self.journal is not None:
            try:
                state = json.loads(json.dumps(strategy.state_dict(), allow_nan=False))
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{name}.state_dict() must hold lists, dicts, strings and finite numbers: {error}."
                ) from error
            rest = {"candidates": len(population), "rejected": self.rejected[-1], "elapsed": self.elapsed}
            self._record(("state", generation), state=state, metrics=metrics, **rest)
        if self.listener is not None:
            self.listener.on_generation(metrics)

    def _training(self) -> Training | None:
        """How a population is trained; ``None`` to the end, each member on its own."""
        limit = self.settings.budget.min_fitness_after
        if type(self.strategy).train is not Strategy.train:
            return self.strategy.train
        return None if limit is None else lambda population: self._reject_early(population, *limit)

    def _reject_early(self, population: Population, after: int, value: float) -> Iterator[Evaluation]:
        """Train a population, and reject on the way what is not good enough after ``after`` epochs or steps."""
        population.advance(after)
        scores = list(population.scores())
        for index, early in enumerate(scores):
            if early.ok and not self.sign * early.fitness <= self.sign * value:
                why = (
                    f"{self.objective.monitor} was {early.fitness:.4g} after {after} {self.settings.budget.unit}, "
                    f"min_fitness_after asks for {value:g}"
                )
                scores[index] = Evaluation(math.nan, "rejected", early.seconds, why)
        good = [index for index, early in enumerate(scores) if early.ok]
        population.keep(good)
        population.advance(population.length - population.trained)
        for index, late in zip(good, population.scores(), strict=True):
            scores[index] = late
        yield from scores

    def _train(
        self,
        stage: str,
        number: int,
        names: Sequence[str | int],
        criteria: Sequence[Criterion],
        training: Training | None = None,
    ) -> list[Evaluation]:
        """Evaluations of ``criteria``: from the journal, or trained and recorded as soon as each is known."""
        keys, seed = [(stage, number, name) for name in names], self.settings.training_seed(stage, number)
        known = [self._known(key, criterion, seed) for key, criterion in zip(keys, criteria, strict=True)]
        trained = [index for index, evaluation in enumerate(known) if evaluation is None]
        # Members that depend on one another are trained again as a whole, with the same result
        if trained and (training is not None or self.evaluator.shares_passes):
            trained = list(range(len(criteria)))
        population: Any = self.evaluator.start([criteria[i] for i in trained], seed) if trained else None
        if trained and self.settings.budget.score == "best":
            population = BestCheck(population, self.objective.mode)
        evaluations = []
        try:
            train = training or partial(Strategy.train, self.strategy)
            fresh = iter(()) if population is None else iter(train(population))
            for index, (key, criterion) in enumerate(zip(keys, criteria, strict=True)):
                again = next(fresh, None) if index in trained else None
                evaluation = known[index] or again
                if evaluation is None:
                    raise ValueError(
                        f"{type(self.strategy).__name__}.train() must yield one evaluation for each of "
                        f"{len(criteria)} candidates, got {index}."
                    )
                if population is not None and again is not None:
                    self._look(population, trained.index(index), criterion, again)
                if known[index] is None:
                    self.check()
                    values = {"criterion": criterion.to_dict(), "seed": seed, **evaluation.to_dict()}
                    self._record(key, **values, elapsed=self.elapsed)
                evaluations.append(evaluation)
                self._note(stage, evaluation)
        finally:
            if population is not None:
                population.close()
        return evaluations

    def _look(self, population: Population, member: int, criterion: Criterion, evaluation: Evaluation) -> None:
        """Look once at a network that was trained with the module's own loss."""
        if self.look is not None and self.diagnosis is None and criterion.is_original and evaluation.ok:
            self.diagnosis = {"figures": self.look(population, member)}
            self._record(("diagnosis",), **self.diagnosis)

    def _known(self, key: Sequence[str | int], criterion: Criterion, seed: int) -> Evaluation | None:
        """What the journal holds of a training."""
        record = self._recall(key)
        if record is None:
            return None
        if record["criterion"] != criterion.to_dict() or record["seed"] != seed:
            raise JournalError(
                f"{self._path} holds another candidate under {list(key)} than this search proposes; the versions of "
                "its dependencies may differ from those it was written with."
            )
        self.elapsed_before = max(self.elapsed_before, record["elapsed"])
        return Evaluation.from_dict(record)

    def _note(self, stage: str, evaluation: Evaluation) -> None:
        if stage == "generation" and evaluation.ok and not self.sign * evaluation.fitness >= self.sign * self.best:
            self.best = evaluation.fitness
        if self.listener is not None:
            self.listener.on_evaluation(stage, evaluation, self.best)

    def _metrics(self, population: Sequence[Candidate]) -> dict[str, float]:
        """What is logged of a generation; fitness entries are left out if no candidate is valid."""
        valid = sorted((c for c in population if c.status == "ok"), key=lambda c: self.sign * c.fitness)
        rejected = self.rejected[-1]
        metrics = {
            "generation": population[0].generation + 1,
            **{name: float(value) for name, value in self.strategy.metrics().items() if math.isfinite(value)},
            "failed": len(population) - len(valid),
            "rejected": rejected,
            "feasible_share": len(population) / (len(population) + rejected),
            "seconds": sum(c.seconds for c in population),
        }
        if valid:
            theta = [value for loss in valid[0].criterion.losses for value in loss.theta]
            metrics |= {
                "fitness_best": valid[0].fitness,
                "fitness_mean": fmean(c.fitness for c in valid),
                "fitness_best_so_far": self.best,
                "fitness_worst": valid[-1].fitness,
                **{f"theta_{i}": value for i, value in enumerate(theta)},
                "step": valid[0].criterion.step,
            }
        return metrics


def _reason(population: Sequence[Candidate]) -> str:
    """Why none of ``population`` could be trained."""
    reasons = Counter(f"{c.status}: {c.error}" if c.error else c.status for c in population)
    reason, count = reasons.most_common(1)[0]
    others = f" and {counted(len(reasons) - 1, 'other reason')}" if len(reasons) > 1 else ""
    return (
        f"None of {len(population)} candidates of generation {population[0].generation + 1} could be trained. Most "
        f"often ({count} of {len(population)}{others}): {reason}"
    )
