"""Populations whose members train in workers, whatever the workers run on."""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.limits import overdue
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.search import Criterion, Evaluation

__all__ = ["PoolEvaluator", "PoolPopulation", "Slot"]

# How often a candidate is run whose workers die, and how often in a row a worker may die as it starts
ATTEMPTS = 3
# A worker ends an overdue training by itself, at the next batch; one that has not after so many seconds hangs
HANG_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Slot:
    """A place in the pool, with a :class:`~tglo_lightning.evaluation.workers.worker.Worker` in another process."""

    rank: int  # number of the place, from 0
    submit: Callable[..., Future[Any]]  # calls a method of the worker
    ready: Future[Any]  # done once the worker has taken on the search
    lost: tuple[type[Exception], ...]  # exceptions of a call whose worker died
    close: Callable[[], Any]  # kills the worker


class PoolEvaluator:
    """Trains the members of populations in workers, which live as long as the search."""

    kind: str
    advice: str  # what to do if a worker cannot start
    attempts = ATTEMPTS
    shares_passes = False
    fit: InnerFit

    def __init__(self, inner: Any = None) -> None:
        self.inner = TrainerEvaluator() if inner is None else inner
        self.slots: list[Slot] = []
        self.keys = count()
        self._stillborn = 0

    @property
    def name(self) -> str:
        """Kind of the workers, with the name of the inner evaluator unless that is the Trainer's."""
        name = getattr(self.inner, "name", type(self.inner).__name__)
        return self.kind if name == TrainerEvaluator.name else f"{self.kind}-{name}"

    def with_inner(self, inner: Any) -> Any:
        """Return the same evaluator, whose workers train with ``inner``."""
        twin = copy.copy(self)
        PoolEvaluator.__init__(twin, inner)
        return twin

    def setup(self, fit: InnerFit) -> None:
        """Take on a search; the workers start with its first candidates."""
        self.close()
        self.fit = fit

    def close(self) -> None:
        """End the workers, and let go of what the search held."""
        for slot in list(self.slots):
            self.end(slot)
        vars(self).pop("fit", None)

    def start(self, criteria: Sequence[Criterion], seed: int) -> PoolPopulation:
        """Start a training for each criterion."""
        return PoolPopulation(self, criteria, seed)

    def count(self) -> int:
        """Return the number of workers that can run at once."""
        raise NotImplementedError

    def open(self, rank: int) -> Slot:
        """Start a worker."""
        raise NotImplementedError

    def end(self, slot: Slot) -> None:
        """Kill a worker; its place is free for another."""
        if slot in self.slots:
            self.slots.remove(slot)
            slot.close()

    def ready(self, wanted: int) -> list[Slot]:
        """Start workers until there are ``wanted``, or :meth:`count`. Return those that can work.

        Raises:
            RuntimeError: a worker cannot take on the search.
            TypeError: something that it needs cannot be pickled.
        """
        for slot in [slot for slot in self.slots if slot.ready.done()]:
            if (error := slot.ready.exception()) is None:
                self._stillborn = 0
                continue
            self.end(slot)
            self._stillborn += 1
            if self._stillborn >= ATTEMPTS or not isinstance(error, slot.lost):
                cause = (str(error).strip() or "it died as it started").splitlines()[-1]
                raise RuntimeError(f"A worker cannot take on the search: {cause}. {self.advice}") from error
        try:
            for rank in set(range(min(self.count(), wanted))) - {slot.rank for slot in self.slots}:
                self.slots.append(self.open(rank))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"The evaluator {self.name!r} sends the training to other processes, so the module, the data, the "
                f"callbacks and `init` must be picklable: {error}. Define their classes and functions at the top level "
                "of a file, or use another evaluator."
            ) from error
        return [slot for slot in self.slots if slot.ready.done()]


class PoolPopulation:
    """Members that train in workers; see :class:`~tglo_lightning.search.Population`.

    A member that has not started is taken by whichever worker is free. One that waits stays with its worker; should
    that die, it is trained again to the same point.
    """

    def __init__(self, pool: PoolEvaluator, criteria: Sequence[Criterion], seed: int) -> None:
        self.length = pool.fit.budget.length
        self.trained = 0
        # Where members were let go last
        self._let_go = 0
        self.members = list(range(len(criteria)))
        self._pool, self._criteria, self._seed = pool, criteria, seed
        self._keys = [next(pool.keys) for _ in criteria]
        # Evaluations at the present point, and of failed members
        self._known: dict[int, Evaluation] = {}
        self._homes: dict[int, Slot] = {}
        # What members begin with in a worker that does not know them
        self._states: dict[int, bytes] = {}
        self._running: dict[int, tuple[Future[Evaluation], float]] = {}
        self._deaths: Counter[int] = Counter()

    def advance(self, n: int) -> None:
        """Let each member train on for ``n`` epochs or steps, once scores are asked for."""
        if (trained := min(self.trained + n, self.length)) != self.trained:
            self.trained = trained
            self._known = {member: early for member, early in self._known.items() if early.status != "ok"}

    def scores(self) -> Iterator[Evaluation]:
        """Train and validate the members; yield their evaluations in order, each once those before it are known.

        Raises:
            RuntimeError, TypeError: a worker cannot take on the search.
        """
        return self._scored(list(self.members))

    def keep(self, members: Sequence[int]) -> None:
        """End the other trainings. Those that are kept stay in their workers."""
        self._abandon()
        if len(members) < len(self.members):
            self._let_go = self.trained
        self._free(set(self.members) - set(members))
        self.members = sorted(members)

    def weights(self, member: int) -> dict[str, Tensor]:
        """Return a copy of a member's parameters and buffers, on the CPU.

        A member that is done is trained again if the next score has been asked for since.

        Raises:
            RuntimeError: the training failed.
        """
        known = self._known.get(member, Evaluation(math.nan))
        if known.status == "ok" and self._homes.get(member) not in self._pool.slots:
            self._known.pop(member, None)
            known = next(self._scored([member]))
        if known.status != "ok":
            raise RuntimeError(f"Candidate {member} has no weights: {known.error}")
        home = self._homes[member]
        try:
            weights: dict[str, Tensor] = pickle.loads(home.submit("weights", self._keys[member]).result())
        except home.lost:
            self._pool.end(home)
            return self.weights(member)
        return weights

    def state(self) -> dict[str, Any] | None:
        """Return what each member has noted at the start of this epoch, and the scores of those that have failed."""
        states: dict[int, Any] = {}
        for member in self.members:
            if (known := self._known.get(member)) is not None and known.status != "ok":
                states[member] = {"score": known.to_dict()}
            elif (home := self._homes.get(member)) in self._pool.slots:
                with suppress(*home.lost):
                    states[member] = pickle.loads(home.submit("state", self._keys[member]).result())
        trained = {state["trained"] for state in states.values() if state is not None and "trained" in state}
        if len(states) < len(self.members) or None in states.values() or len(trained) != 1:
            return None
        start = trained.pop()
        return {"trained": start, "members": self.members, "states": states} if self._let_go <= start else None

    def restore(self, state: dict[str, Any]) -> None:
        """Begin with what :meth:`state` has returned."""
        states = state["states"]
        self.trained, self.members = state["trained"], state["members"]
        for member, own in states.items():
            if "score" in own:
                self._known[member] = Evaluation.from_dict(own["score"])
            else:
                self._states[member] = pickle.dumps(own)

    def close(self) -> None:
        """End all trainings."""
        self.keep([])

    def _scored(self, members: Sequence[int]) -> Iterator[Evaluation]:
        try:
            for member in members:
                while member in self.members and member not in self._known:
                    self._collect(self._assign())
                yield self._known[member]
                if self.trained >= self.length:
                    self._free([member])
        except BaseException:
            # Half-finished work belongs to nobody
            self._abandon()
            raise

    def _assign(self) -> list[Future[Any]]:
        """Give each free worker a member. Return what is done as soon as a worker more can work."""
        ready = self._pool.ready(len(self.members))
        busy = [self._homes[member] for member in self._running]
        free = [slot for slot in ready if slot not in busy]
        for member in self.members:
            home = self._homes.get(member)
            slot = home if home in self._pool.slots else next(iter(free), None)
            if member in self._known or member in self._running or slot is None or slot not in free:
                continue
            free.remove(slot)
            criterion = self._criteria[member]
            limit = self._pool.fit.timeout(criterion)
            deadline = math.inf if limit is None else time.monotonic() + limit + HANG_SECONDS
            state = self._states.get(member) if slot is not home else None
            future = slot.submit("score", self._keys[member], criterion, self._seed, self.trained, state)
            self._homes[member], self._running[member] = slot, (future, deadline)
        return [slot.ready for slot in self._pool.slots if slot not in ready]

    def _collect(self, starting: Sequence[Future[Any]]) -> None:
        """Wait until a worker is ready, done, dead or overdue; note what has come out."""
        pool = self._pool
        seconds = min((deadline for _, deadline in self._running.values()), default=math.inf) - time.monotonic()
        timeout = None if math.isinf(seconds) else max(0.0, seconds)
        wait([*starting, *(future for future, _ in self._running.values())], timeout, FIRST_COMPLETED)
        for member, (future, deadline) in list(self._running.items()):
            slot = self._homes[member]
            if not future.done():
                if time.monotonic() < deadline:
                    continue
                pool.end(slot)
                limit = pool.fit.timeout(self._criteria[member]) or 0.0
                why = f"{overdue(limit)}; its worker process hung and was killed"
                self._known[member] = Evaluation(math.nan, "timeout", limit + HANG_SECONDS, why)
            elif (error := future.exception()) is None:
                self._known[member] = future.result()
            elif isinstance(error, slot.lost):
                pool.end(slot)
                self._deaths[member] += 1
                if self._deaths[member] == pool.attempts:
                    words = [f"its worker process was killed {pool.attempts} times", *str(error).strip().splitlines()]
                    self._known[member] = Evaluation(math.nan, "crashed", 0.0, ": ".join(words[:2]))
            else:
                raise error
            del self._running[member]

    def _free(self, members: Iterable[int]) -> None:
        """Let the workers forget these members."""
        for member in members:
            home = self._homes.pop(member, None)
            if home is not None and home in self._pool.slots:
                home.submit("drop", self._keys[member])

    def _abandon(self) -> None:
        """End what runs, with its workers."""
        for member in self._running:
            self._pool.end(self._homes[member])
        self._running.clear()
