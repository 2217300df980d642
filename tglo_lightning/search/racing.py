"""Run a race: train side by side, look now and then, remember the best network."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from tglo_lightning.search.budget import Budget
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.curves import Curves
from tglo_lightning.search.evaluator import Evaluation, Evaluator
from tglo_lightning.search.finals import Finals
from tglo_lightning.search.journal import Journal
from tglo_lightning.search.loop import SearchError
from tglo_lightning.search.race import Race
from tglo_lightning.search.result import Candidate, Finalist, SearchResult
from tglo_lightning.search.settings import Objective, SearchSettings
from tglo_lightning.search.space import Space

__all__ = ["RaceListener", "Raced", "confirm", "race"]

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Raced:
    """A race that has ended.

    Attributes:
        result: what it found.
        weights: parameters and buffers of the network that won, by name, on the CPU.
    """

    result: SearchResult
    weights: Weights


class RaceListener(Protocol):
    """Follows a race."""

    def on_check(self, trained: int, values: Sequence[float]) -> None:
        """After each check, with the epochs or steps so far and the metric of each member, NaN without one."""


def race(
    evaluator: Evaluator,
    settings: SearchSettings,
    objective: Objective,
    *,
    journal: Journal | None = None,
    listener: RaceListener | None = None,
    check: Callable[[], None] = lambda: None,
    look: Callable[[int, Criterion, Any, int], None] | None = None,
) -> Raced:
    """Train the members of a :class:`~tglo_lightning.search.Race` side by side, and keep the best network.

    The state of optimizers and loaders in the middle of a training is not saved. A race that was killed trains again
    from its start, compares every check with the journal, and ends with the same networks.

    Args:
        evaluator: trains and scores.
        settings: the arguments, with a race as ``strategy``.
        objective: what is optimised; one of its ``options`` for each loss of the module.
        journal: records every check.
        listener: followed by progress bars and loggers.
        check: called after every check; raises if the race is to end.
        look: called at every check for each member that was scored, with its number, its criterion, the population and
            its place there.

    Raises:
        SearchError: no member could be trained.
    """
    strategy, budget = settings.strategy, settings.budget
    assert isinstance(strategy, Race)
    assert isinstance(budget, Budget)
    started = time.monotonic()
    assert isinstance(settings.space, Space)
    criteria = strategy.criteria(settings.space.for_task(objective.num_classes, objective.priors))
    members = [_Member(criterion) for criterion in criteria]
    best = max if objective.mode == "max" else min
    records = _Records(journal)
    with closing(evaluator.start(criteria, settings.training_seed("generation", 0))) as population:
        checks = strategy.checks(population.length)
        for number, at in enumerate(checks):
            population.advance(at - population.trained)
            running = list(population.members)
            for member, evaluation in zip(running, population.scores(), strict=True):
                wanted = at == population.length if strategy.score == "last" else True
                if wanted and evaluation.ok and members[member].falls_short_of(evaluation.fitness, best):
                    # At once: the next score may take the place of these
                    weights = population.weights(member)
                    if any(bool(value.isnan().any()) for value in weights.values()):
                        error = f"a weight is not a number after {at} {budget.unit}"
                        evaluation = Evaluation(math.nan, "diverged", evaluation.seconds, error)
                    else:
                        members[member].keep(evaluation.fitness, at, weights)
                members[member].note(evaluation)
                if look is not None and evaluation.ok:
                    look(member, criteria[member], population, member)
            for member in set(range(len(members))) - set(running):
                members[member].values.append(math.nan)
            check()
            elapsed = time.monotonic() - started
            records.compare_or_append(number, {member: members[member] for member in running}, elapsed)
            if listener is not None:
                listener.on_check(at, [member.values[-1] for member in members])
            if strategy.halved(checks[number - 1] if number else 0, at, population.length):
                population.keep(_better_half(running, members, best))
    scored = [index for index, member in enumerate(members) if member.weights]
    if not scored:
        raise SearchError(f"None of {len(members)} members of the race could be trained: {members[0].last.error}.")
    # Of equal ones the first, so the module's own loss stays unless another is better
    winner = best(scored, key=lambda index: members[index].best)
    curves = Curves(
        budget.unit,
        tuple(checks),
        tuple(criteria),
        tuple(tuple(member.values) for member in members),
        winner,
        members[winner].kept_at,
    )
    own = next(member for member in members if member.criterion.is_original)
    result = SearchResult(
        kept="original" if members[winner].criterion.is_original else "metalearned",
        monitor=objective.monitor,
        mode=objective.mode,
        best=Finalist(members[winner].criterion, f"member {winner + 1}", (members[winner].best,), None, 0),
        original=Finalist.of(Criterion.original(), objective.original, [own.evaluation]),
        finalists=(),
        history=tuple(
            Candidate.of(0, index, member.criterion, member.evaluation) for index, member in enumerate(members)
        ),
        seconds=time.monotonic() - started,
        settings=settings.to_dict()
        | {
            "num_classes": objective.num_classes,
            "evaluator": evaluator.name,
            "original_options": list(objective.options),
        },
        curves=curves,
    )
    return Raced(result, members[winner].weights)


def confirm(
    result: SearchResult,
    evaluator: Evaluator,
    settings: SearchSettings,
    objective: Objective,
    *,
    journal: Journal | None = None,
    check: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Train the winner's loss and the module's own from fresh seeds, and test the difference.

    The network that was kept stays whatever the test says: it is one network, the test is about its loss.
    """
    if result.best is None or result.best.criterion.is_original or result.curves is None:
        return result
    assert isinstance(settings.finals, Finals)
    started = time.monotonic()

    def train(stage: str, number: int, entrants: Sequence[Criterion]) -> list[Evaluation]:
        keys = [(stage, number, index) for index in range(len(entrants))]
        known = [None if journal is None else journal.recall(key) for key in keys]
        if all(known):
            return [Evaluation.from_dict(record) for record in known if record]
        seed = settings.training_seed(stage, number)
        with closing(evaluator.start(entrants, seed)) as population:
            population.advance(population.length)
            scores = list(population.scores())
        check()
        for key, criterion, score in zip(keys, entrants, scores, strict=True):
            if journal is not None:
                elapsed = result.seconds + time.monotonic() - started
                record = {"criterion": criterion.to_dict(), "seed": seed, **score.to_dict(), "elapsed": elapsed}
                journal.append(key, record)
        return scores

    # One candidate, and nothing to choose
    finals = replace(settings.finals, finalists=1, seeds=0)
    winner = result.history[result.curves.winner]
    outcome = finals.run(train, [winner], objective.original, objective.mode)
    seconds = result.seconds + time.monotonic() - started
    return replace(result, best=outcome.best, original=outcome.original, p_value=outcome.p_value, seconds=seconds)


class _Member:
    """A network in a race."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion
        self.values: list[float] = []
        self.last = Evaluation(math.nan)
        self.best = math.nan
        self.kept_at = 0
        self.weights: Weights = {}

    def falls_short_of(self, fitness: float, best: Callable[..., float]) -> bool:
        """Whether the network that is kept so far, if any, is worse."""
        return not self.weights or best(self.best, fitness) != self.best

    def note(self, evaluation: Evaluation) -> None:
        """Remember the score of a check."""
        self.last = evaluation
        self.values.append(evaluation.fitness if evaluation.ok else math.nan)

    def keep(self, fitness: float, at: int, weights: Weights) -> None:
        """Keep the network as it stands."""
        self.best, self.kept_at = fitness, at
        self.weights = {name: value.detach().cpu().clone() for name, value in weights.items()}

    @property
    def evaluation(self) -> Evaluation:
        """The score of the network that is kept, with the time of the whole training; the last one if none is."""
        return replace(self.last, fitness=self.best, status="ok") if self.weights else self.last


def _better_half(running: Sequence[int], members: Sequence[_Member], best: Callable[..., float]) -> list[int]:
    """Return the better half of the members in training by their best checks, at least one."""
    peaks = {
        index: best(value for value in members[index].values if math.isfinite(value))
        for index in running
        if math.isfinite(members[index].values[-1])
    }
    ranked = sorted(peaks, key=peaks.__getitem__, reverse=best is max)
    return sorted(ranked[: math.ceil(len(running) / 2)])


class _Records:
    """The checks of a race in its journal."""

    def __init__(self, journal: Journal | None) -> None:
        self.journal = journal
        self.repeats = True

    def compare_or_append(self, number: int, members: Mapping[int, _Member], elapsed: float) -> None:
        """Record a check, or compare it with what was recorded before a kill."""
        if self.journal is None:
            return
        scores = {
            str(index): {**member.last.to_dict(), "criterion": member.criterion.to_dict()}
            for index, member in members.items()
        }
        record = self.journal.recall(("check", number))
        if record is not None and self.repeats:
            if _outcomes(record["scores"]) == _outcomes(scores):
                return
            self.repeats = False
            warnings.warn(
                f"The race does not repeat what {self.journal.path} holds of it, from check {number + 1} on: this "
                "training is not deterministic. What is trained now counts.",
                stacklevel=3,
            )
        self.journal.append(("check", number), {"scores": scores, "elapsed": elapsed})


def _outcomes(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, float | None]]:
    return {member: (entry["status"], entry["fitness"]) for member, entry in scores.items()}
