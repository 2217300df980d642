"""The search: ask, start, advance, scores, tell; then the finals."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean
from typing import Protocol, cast

from tglo_lightning.search.budget import Budget
from tglo_lightning.search.checks import BestCheck
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.evaluator import Evaluation, Evaluator, Population
from tglo_lightning.search.finals import Finals
from tglo_lightning.search.journal import Journal, JournalError
from tglo_lightning.search.result import Candidate, SearchResult
from tglo_lightning.search.settings import Objective, SearchSettings
from tglo_lightning.search.space import Space
from tglo_lightning.search.strategy import Strategy
from tglo_lightning.wording import counted

__all__ = ["Listener", "SearchError", "search"]

# How often a generation without one valid candidate is drawn again
RETRIES = 3


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
    look: Callable[[Population, int], dict[str, float] | None] | None = None,
) -> SearchResult:
    """Metalearn a loss.

    The strategy proposes ``settings.generations`` populations; a generation of which no candidate could be trained is
    proposed again, up to 3 times, if the strategy knows how. Then the finals choose among the evaluated candidates and
    confirm the choice against the module's own loss.

    Args:
        evaluator: trains and scores.
        settings: the arguments of the search.
        objective: what is optimised.
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
    return _Search(evaluator, settings, objective, journal, listener, check, look).run()


class _Search:
    """A search while it runs."""

    def __init__(
        self,
        evaluator: Evaluator,
        settings: SearchSettings,
        objective: Objective,
        journal: Journal | None,
        listener: Listener | None,
        check: Callable[[], None],
        look: Callable[[Population, int], dict[str, float] | None] | None,
    ) -> None:
        assert isinstance(settings.strategy, Strategy)
        assert isinstance(settings.space, Space)
        self.evaluator, self.settings, self.objective = evaluator, settings, objective
        self.journal, self.listener, self.check = journal, listener, check
        self.strategy = settings.strategy
        self.strategy.mode = objective.mode
        space = settings.space.for_task(objective.num_classes, objective.priors)
        self.strategy.start(space, settings.population, settings.seed)
        self.sign = -1.0 if objective.mode == "max" else 1.0
        self.look, self.diagnosis = look, None if journal is None else journal.recall(("diagnosis",))
        self.history: list[Candidate] = []
        self.rejected: list[int] = []
        self.best = math.nan
        self.elapsed_before = 0.0
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of the search, those before a kill included."""
        return self.elapsed_before + time.monotonic() - self.started

    def run(self) -> SearchResult:
        settings, objective = self.settings, self.objective
        assert isinstance(settings.finals, Finals)
        begun = self._restore()
        self._note_settings()
        for generation in range(begun, settings.generations):
            if generation and self._out_of_time(generation):
                break
            self._generation(generation)
        outcome = settings.finals.run(self._final, self.history, objective.original, objective.mode)
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
            settings=settings.to_dict()
            | {
                "num_classes": objective.num_classes,
                "evaluator": self.evaluator.name,
                "original_options": list(objective.options),
            },
        )

    def _note_settings(self) -> None:
        """Write down how many generations are asked for; a search that goes on may be asked for more."""
        asked = self.settings.to_dict()
        if self.journal is not None and (self.journal.recall(("settings",)) or {}).get("settings") != asked:
            self.journal.append(("settings",), {"settings": asked})

    def _out_of_time(self, generation: int) -> bool:
        """Whether another generation and the finals would take longer than the whole search may."""
        limit = self.settings.budget.max_time if isinstance(self.settings.budget, Budget) else None
        if limit is None:
            return False
        # A search that is resumed stops where it stopped
        key = ("time", generation)
        if self.journal is not None and self.journal.recall(key) == {"key": list(key), "max_time": limit}:
            return True
        assert isinstance(self.settings.finals, Finals)
        needed = self.settings.population + self.settings.finals.trainings
        if self.elapsed * (1 + needed / len(self.history)) <= limit:
            return False
        if self.journal is not None:
            self.journal.append(key, {"max_time": limit})
        return True

    def _restore(self) -> int:
        """Take over the generations that the journal holds whole; return the number of the next one."""
        if self.journal is None:
            return 0
        generation, state = 0, None
        while (record := self.journal.recall(("state", generation))) is not None:
            for index in range(record["candidates"]):
                entry = self.journal.recall(("generation", generation, index))
                if entry is None:
                    raise JournalError(f"{self.journal.path} lacks candidate {index} of generation {generation}.")
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
        population: list[Candidate] = []
        rejected_before = self.strategy.rejected
        while not any(candidate.status == "ok" for candidate in population):
            if population:
                if len(population) > RETRIES * self.settings.population or not self.strategy.retry():
                    raise SearchError(_reason(population))
                warnings.warn(
                    f"No candidate of generation {generation + 1} could be trained; drawing it again nearer to the "
                    "centre of the space.",
                    stacklevel=4,
                )
            criteria = self.strategy.ask()
            if not criteria or not all(isinstance(criterion, Criterion) for criterion in criteria):
                raise TypeError(f"{type(self.strategy).__name__}.ask() must return criteria, got {criteria!r}.")
            offset = len(population)
            seed = self.settings.training_seed("generation", generation)
            keys: list[tuple[str | int, ...]] = [
                ("generation", generation, offset + index) for index in range(len(criteria))
            ]
            evaluations = self._train("generation", keys, criteria, seed, self._strategy_training())
            population += [
                Candidate.of(generation, offset + index, criterion, evaluation)
                for index, (criterion, evaluation) in enumerate(zip(criteria, evaluations, strict=True))
            ]
        self.history += population
        self.rejected.append(self.strategy.rejected - rejected_before)
        self.strategy.tell([self.sign * e.fitness if e.ok else math.nan for e in evaluations])
        metrics = self._metrics(population)
        if self.journal is not None and self.journal.recall(("state", generation)) is None:
            rest = {"candidates": len(population), "rejected": self.rejected[-1], "elapsed": self.elapsed}
            try:
                state = json.loads(json.dumps(self.strategy.state_dict(), allow_nan=False))
            except (TypeError, ValueError) as error:
                name = type(self.strategy).__name__
                raise TypeError(
                    f"{name}.state_dict() must hold lists, dicts, strings and finite numbers: {error}."
                ) from error
            self.journal.append(("state", generation), {"state": state, "metrics": metrics, **rest})
        if self.listener is not None:
            self.listener.on_generation(metrics)

    def _strategy_training(self) -> Callable[[Population], Iterable[Evaluation]] | None:
        """How the strategy wants a population trained; ``None`` to the end, each member on its own."""
        budget = self.settings.budget
        limit = budget.min_fitness_after if isinstance(budget, Budget) else None
        if type(self.strategy).train is not Strategy.train:
            if limit is not None:
                name = type(self.strategy).__name__
                raise ValueError(f"`min_fitness_after` has no effect: {name} decides by itself who trains on.")
            return self.strategy.train
        if isinstance(budget, Budget) and limit is not None:
            after, value = limit
            return lambda population: self._reject_early(population, after, value, budget.unit)
        return None

    def _reject_early(self, population: Population, after: int, value: float, unit: str) -> Iterator[Evaluation]:
        """Train a population, and reject on the way what is not good enough after ``after`` epochs or steps."""
        population.advance(after)
        scores = list(population.scores())
        for index, early in enumerate(scores):
            if early.ok and not self.sign * early.fitness <= self.sign * value:
                why = (
                    f"{self.objective.monitor} was {early.fitness:.4g} after {after} {unit}, min_fitness_after asks "
                    f"for {value:g}"
                )
                scores[index] = Evaluation(math.nan, "rejected", early.seconds, why)
        good = [index for index, early in enumerate(scores) if early.ok]
        population.keep(good)
        population.advance(population.length - population.trained)
        for index, late in zip(good, population.scores(), strict=True):
            scores[index] = late
        yield from scores

    def _final(self, stage: str, number: int, criteria: Sequence[Criterion]) -> list[Evaluation]:
        # By what is trained, so that a search with more generations need not train it again
        keys: list[tuple[str | int, ...]] = [(stage, number, criterion.digest) for criterion in criteria]
        return self._train(stage, keys, criteria, self.settings.training_seed(stage, number))

    def _train(
        self,
        stage: str,
        keys: Sequence[tuple[str | int, ...]],
        criteria: Sequence[Criterion],
        seed: int,
        training: Callable[[Population], Iterable[Evaluation]] | None = None,
    ) -> list[Evaluation]:
        """Evaluations of ``criteria``: from the journal, or trained and recorded as soon as each is known."""
        known = [self._recall(key, criterion, seed) for key, criterion in zip(keys, criteria, strict=True)]
        missing = [index for index, evaluation in enumerate(known) if evaluation is None]
        # Members that depend on one another are trained again as a whole, with the same result
        whole = training is not None or self.evaluator.shares_passes
        trained = range(len(criteria)) if missing and whole else missing
        population = self._start([criteria[index] for index in trained], seed) if trained else None
        evaluations = []
        try:
            fresh = iter(_scores(population, training)) if population is not None else iter(())
            for index, (key, criterion) in enumerate(zip(keys, criteria, strict=True)):
                again = next(fresh, None) if index in trained else None
                evaluation = known[index] or again
                if evaluation is None:
                    raise ValueError(
                        f"{type(self.strategy).__name__}.train() must yield one evaluation for each of "
                        f"{len(criteria)} candidates, got {index}."
                    )
                if criterion.is_original and again is not None and again.ok:
                    self._look(population, list(trained).index(index))
                if known[index] is None:
                    self.check()
                    self._record(key, criterion, seed, evaluation)
                evaluations.append(evaluation)
                self._note(stage, evaluation)
        finally:
            if population is not None:
                population.close()
        return evaluations

    def _look(self, population: Population | None, member: int) -> None:
        """Look at a network that was trained with the module's own loss, once."""
        if self.look is None or population is None or self.diagnosis is not None:
            return
        self.diagnosis = {"figures": self.look(population, member)}
        if self.journal is not None:
            self.journal.append(("diagnosis",), self.diagnosis)

    def _start(self, criteria: Sequence[Criterion], seed: int) -> Population:
        population = self.evaluator.start(criteria, seed)
        budget = self.settings.budget
        best = isinstance(budget, Budget) and budget.score == "best"
        return cast(Population, BestCheck(population, self.objective.mode)) if best else population

    def _recall(self, key: Sequence[str | int], criterion: Criterion, seed: int) -> Evaluation | None:
        record = None if self.journal is None else self.journal.recall(key)
        if self.journal is None or record is None:
            return None
        if record["criterion"] != criterion.to_dict() or record["seed"] != seed:
            raise JournalError(
                f"{self.journal.path} holds another candidate under {list(key)} than this search proposes; the "
                "versions of its dependencies may differ from those it was written with."
            )
        self.elapsed_before = max(self.elapsed_before, record["elapsed"])
        return Evaluation.from_dict(record)

    def _record(self, key: Sequence[str | int], criterion: Criterion, seed: int, e: Evaluation) -> None:
        if self.journal is None:
            return
        values = {"criterion": criterion.to_dict(), "seed": seed, **e.to_dict(), "elapsed": self.elapsed}
        self.journal.append(key, values)

    def _note(self, stage: str, evaluation: Evaluation) -> None:
        if stage == "generation" and evaluation.ok and not self.sign * evaluation.fitness >= self.sign * self.best:
            self.best = evaluation.fitness
        if self.listener is not None:
            self.listener.on_evaluation(stage, evaluation, self.best)

    def _metrics(self, population: Sequence[Candidate]) -> dict[str, float]:
        """What is logged of a generation; fitness entries are left out if no candidate is valid."""
        valid = [c for c in population if c.status == "ok"]
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
            fitness = [c.fitness for c in valid]
            leader = min(valid, key=lambda c: self.sign * c.fitness)
            metrics |= {
                "fitness_best": leader.fitness,
                "fitness_mean": fmean(fitness),
                "fitness_best_so_far": self.best,
            }
            metrics["fitness_worst"] = max(fitness, key=lambda value: self.sign * value)
            theta = [value for loss in leader.criterion.losses for value in loss.theta]
            metrics |= {f"theta_{i}": value for i, value in enumerate(theta)} | {"step": leader.criterion.step}
        return metrics


def _scores(
    population: Population, training: Callable[[Population], Iterable[Evaluation]] | None
) -> Iterable[Evaluation]:
    if training is not None:
        return training(population)
    population.advance(population.length)
    return population.scores()


def _reason(population: Sequence[Candidate]) -> str:
    """Why none of ``population`` could be trained."""
    reasons = Counter(f"{c.status}: {c.error}" if c.error else c.status for c in population)
    reason, count = reasons.most_common(1)[0]
    others = f" and {counted(len(reasons) - 1, 'other reason')}" if len(reasons) > 1 else ""
    return (
        f"None of {len(population)} candidates of generation {population[0].generation + 1} could be trained. Most "
        f"often ({count} of {len(population)}{others}): {reason}"
    )
