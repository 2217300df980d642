"""Run a race: train side by side, look now and then, remember the best network."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.curves import Curves
from tglo_lightning.search.evaluator import Evaluation, Evaluator, Resumable
from tglo_lightning.search.journal import Journal
from tglo_lightning.search.loop import Search, SearchError
from tglo_lightning.search.result import Candidate, Finalist, SearchResult
from tglo_lightning.search.settings import Objective, SearchSettings

Weights = dict[str, Tensor]
# What takes less time is sooner trained again than written
SAVE_SECONDS = 1.0


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
    save: Callable[[dict[str, Any]], None] | None = None,
    saved: Mapping[str, Any] | None = None,
) -> Raced:
    """Train the members of a :class:`~tglo_lightning.search.Race` side by side, and keep the best network.

    A race that was killed goes on from what it saved after its last check, at the start of the epoch that this check
    lies in, or from its own start; compares the checks from there with the journal; and ends with the same networks.

    Args:
        evaluator: trains and scores.
        settings: the arguments, with a race as ``strategy``.
        objective: what is optimised; one of its ``options`` for each loss of the module.
        journal: records every check.
        listener: followed by progress bars and loggers.
        check: called after every check; raises if the race is to end.
        look: called at every check for each member that was scored, with its number, its criterion, the population and
            its place there.
        save: called after a check with the state of the race, as tensors and plain values, if the population knows it;
            at most every ``SAVE_SECONDS``.
        saved: such a state.

    Raises:
        SearchError: no member could be trained.
    """
    strategy, unit, started = settings.strategy, settings.budget.unit, time.monotonic()
    criteria = strategy.criteria(settings.space.for_task(objective.num_classes, objective.priors))
    members = [_Member(criterion, -1.0 if objective.mode == "max" else 1.0) for criterion in criteria]
    repeats, saved_at = True, started
    with closing(evaluator.start(criteria, settings.training_seed("generation", 0))) as population:
        checks = strategy.checks(population.length)
        if saved is not None and _resumed(population, members, saved):
            started -= saved["elapsed"]
        first = len(members[0].values)
        if listener is not None:
            for number, at in enumerate(checks[:first]):
                listener.on_check(at, [member.values[number] for member in members])
        for number, at in list(enumerate(checks))[first:]:
            population.advance(at - population.trained)
            running = {index: members[index] for index in population.members}
            for (index, member), evaluation in zip(running.items(), population.scores(), strict=True):
                member.take(evaluation, at, unit, strategy.score, partial(population.weights, index))
                if look is not None and member.last.ok:
                    look(index, member.criterion, population, index)
            for index, member in enumerate(members):
                member.values.append(member.last.fitness if index in running and member.last.ok else math.nan)
            check()
            if journal is not None:
                repeats = _record(journal, number, running, time.monotonic() - started, repeats)
            if listener is not None:
                listener.on_check(at, [member.values[-1] for member in members])
            if strategy.halved(checks[number - 1] if number else 0, at, population.length):
                good = [index for index, member in running.items() if math.isfinite(member.values[-1])]
                good.sort(key=lambda index: members[index].peak)
                population.keep(sorted(good[: math.ceil(len(running) / 2)]))
            if save is None or at == population.length or time.monotonic() - saved_at < SAVE_SECONDS:
                continue
            if isinstance(population, Resumable) and (state := population.state()) is not None:
                done = sum(earlier <= state["trained"] for earlier in checks)
                plain = [member.to_dict(done) for member in members]
                save({"population": state, "members": plain, "elapsed": time.monotonic() - started})
                saved_at = time.monotonic()
    scored = [member for member in members if member.weights]
    if strategy.score == "last" and any(member.kept_at == checks[-1] for member in scored):
        # Otherwise all that were left failed at the end, and an earlier network is better than none
        scored = [member for member in scored if member.kept_at == checks[-1]]
        for member in members:
            member.weights = member.weights if member in scored else {}
    if not scored:
        raise SearchError(f"None of {len(members)} members of the race could be trained: {members[0].last.error}.")
    # Of equal ones the first, so the module's own loss stays unless another is better
    winner = min(scored, key=lambda member: member.sign * member.best)
    place = members.index(winner)
    values = tuple(tuple(member.values) for member in members)
    own = next(member for member in members if member.criterion.is_original)
    result = SearchResult(
        kept="original" if winner is own else "metalearned",
        monitor=objective.monitor,
        mode=objective.mode,
        best=Finalist(winner.criterion, f"member {place + 1}", (winner.best,), None, 0),
        original=Finalist.of(own.criterion, objective.original, [own.evaluation]),
        finalists=(),
        history=tuple(Candidate.of(0, i, member.criterion, member.evaluation) for i, member in enumerate(members)),
        seconds=time.monotonic() - started,
        settings=objective.notes(settings, evaluator.name),
        curves=Curves(unit, tuple(checks), tuple(criteria), values, place, winner.kept_at),
    )
    return Raced(result, winner.weights)


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

    The network that was kept stays whatever the test says: it is one network, the test is about its loss. If that is
    the module's own, nothing is trained. The arguments are those of :func:`race`, and its result.
    """
    if result.best is None or result.best.criterion.is_original or result.curves is None:
        return result
    search = Search(evaluator, settings, objective, journal, check=check, elapsed_before=result.seconds)
    # One candidate, and nothing to choose
    finals = replace(settings.finals, finalists=1, seeds=0)
    outcome = finals.run(search.final, [result.history[result.curves.winner]], objective.original, objective.mode)
    found = {"best": outcome.best, "original": outcome.original, "p_value": outcome.p_value}
    return replace(result, **found, seconds=search.elapsed)


@dataclass(eq=False)
class _Member:
    """A network in a race, and the best it came to."""

    criterion: Criterion
    sign: float
    values: list[float] = field(default_factory=list)
    last: Evaluation = field(default_factory=lambda: Evaluation(math.nan))
    best: float = math.nan
    kept_at: int = 0
    weights: Weights = field(default_factory=dict)

    def take(self, e: Evaluation, at: int, unit: str, score: str, weights: Callable[[], Weights]) -> None:
        """Take in a score, and keep the network if it is better than the one so far; the latest if ``"last"`` counts.

        ``weights`` are asked for at once, for the next score may take their place.
        """
        self.last = e
        if not e.ok or not (not self.weights or score == "last" or self.sign * e.fitness < self.sign * self.best):
            return
        found = weights()
        if any(bool(value.isnan().any()) for value in found.values()):
            self.last = Evaluation(math.nan, "diverged", e.seconds, f"a weight is not a number after {at} {unit}")
            return
        self.best, self.kept_at = e.fitness, at
        self.weights = {name: value.detach().cpu().clone() for name, value in found.items()}

    def to_dict(self, checks: int) -> dict[str, Any]:
        """Return what is known after so many checks, and the best network so far, as tensors and plain values."""
        kept = {"best": self.best, "kept_at": self.kept_at, "weights": self.weights}
        return {**kept, "values": self.values[:checks], "last": self.last.to_dict()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_dict` has returned."""
        self.best, self.kept_at, self.weights = values["best"], values["kept_at"], values["weights"]
        self.values, self.last = list(values["values"]), Evaluation.from_dict(values["last"])

    @property
    def peak(self) -> float:
        """Its best check as a cost; infinite without one."""
        return min((self.sign * value for value in self.values if math.isfinite(value)), default=math.inf)

    @property
    def evaluation(self) -> Evaluation:
        """The score of the network that is kept, with the time of the whole training; the last one if none is."""
        return replace(self.last, fitness=self.best, status="ok") if self.weights else self.last


def _resumed(population: Any, members: Sequence[_Member], saved: Mapping[str, Any]) -> bool:
    """Go to where a race has been saved; return whether this population can."""
    if not isinstance(population, Resumable):
        return False
    try:
        population.restore(saved["population"])
    except (KeyError, ValueError):
        warnings.warn("Another evaluator or number of ranks has trained so far, so the race starts anew.", stacklevel=3)
        return False
    for member, values in zip(members, saved["members"], strict=True):
        member.restore(values)
    return True


def _record(journal: Journal, number: int, running: Mapping[int, _Member], elapsed: float, repeats: bool) -> bool:
    """Write down a check, or compare it; return whether the race repeats what the journal holds of it so far."""
    scores = {str(i): {**m.last.to_dict(), "criterion": m.criterion.to_dict()} for i, m in running.items()}
    before = journal.recall(("check", number)) if repeats else None
    if before is not None and _outcomes(before["scores"]) == _outcomes(scores):
        return True
    if before is not None:
        warnings.warn(
            f"The race does not repeat what {journal.path} holds of it, from check {number + 1} on: this training is "
            "not deterministic. What is trained now counts.",
            stacklevel=3,
        )
    journal.append(("check", number), {"scores": scores, "elapsed": elapsed})
    return repeats and before is None


def _outcomes(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, float | None]]:
    return {member: (entry["status"], entry["fitness"]) for member, entry in scores.items()}
