"""The ranks of a Trainer share a search: rank 0 leads it, each rank trains a share of every population."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import zip_longest
from typing import Any

import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_only

from tglo_lightning.search import Criterion, Evaluation

__all__ = ["RankError", "Ranks", "check_strategy"]

BEAT_SECONDS = 1.0
# Beats of rank 0 without one of another rank, after which that rank counts as dead. A rank whose Python stands still
# for so long, in code that holds the interpreter's lock, is mistaken for dead
SILENT_BEATS = 40
# Rank 0 waits so long for the others to read why it leaves
LEAVE_SECONDS = 5.0
POLL_SECONDS = 0.002
# Ignored unless it is handled, and used by neither Lightning nor a scheduler; Windows has none
SIGNAL: Any = getattr(signal, "SIGURG", None)
# Of both namespaces of Lightning; it holds the number of this process
_rank_zero_only: Any = rank_zero_only
SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAFSDPStrategy")


class RankError(RuntimeError):
    """The search cannot go on, since another rank cannot."""


class _Interrupted(BaseException):
    """Ends a training. Not an ``Exception``, so that it is not held against the candidate."""


def check_strategy(trainer: Any, evaluator: Any) -> None:
    """Check that a search can run under the Trainer's strategy.

    Raises:
        ValueError: a strategy that shards the module, that trains in child processes of its own, or that is not DDP;
            an evaluator that spreads candidates itself, on several ranks.
    """
    strategy, ranks = trainer.strategy, trainer.world_size
    name = type(strategy).__name__
    kinds = {kind.__name__ for kind in type(strategy).__mro__}
    advice = (
        "Search with `devices=1` or `strategy='ddp'`, then train with this strategy and the loss "
        "`search.result.criterion.build()`."
    )
    evaluator = evaluator if isinstance(evaluator, str) else getattr(evaluator, "name", "")
    if kinds & set(SHARDED):
        raise ValueError(
            f"TaylorGLO cannot search under {name}: it shards the module over the devices, and a candidate is trained "
            f"on a whole copy of the module on one device. {advice}"
        )
    if "_MultiProcessingLauncher" in {kind.__name__ for kind in type(strategy.launcher).__mro__}:
        raise ValueError(
            f"TaylorGLO cannot search under {name} with start method {getattr(strategy, '_start_method', None)!r}: its "
            "child processes end with the fit, and the loss and the result with them. In a script use "
            "`strategy='ddp'`; in a notebook search with `devices=1, evaluator='processes'`, which uses all devices."
        )
    if ranks > 1 and ("DDPStrategy" not in kinds or "XLAStrategy" in kinds):
        raise ValueError(f"TaylorGLO can share a search among ranks under DDP only, not under {name}. {advice}")
    if ranks > 1 and evaluator.startswith(("processes", "ray")):
        raise ValueError(
            f"`evaluator={evaluator!r}` spreads the candidates itself, and so do the {ranks} ranks of the Trainer. "
            "Name what each rank trains with, such as 'auto', 'trainer' or 'sequential'; or search with `devices=1`."
        )


class Ranks:
    """Connects the ranks of a Trainer while a search runs. On one rank, nothing happens.

    Rank 0 leads: it runs the search and alone writes journal and logs. The others follow its orders. What they tell
    each other goes through the process group of the Trainer, once all have come so far. They wait for that at a
    :class:`torch.distributed.TCPStore` of rank 0, since a wait for a collective cannot be interrupted.

    In the store each rank also counts up a number, in a thread of its own. If a rank stops counting, or leaves with an
    exception, the main thread of every other rank is interrupted by a signal.

    Args:
        trainer: the outer Trainer, within ``fit``.

    Attributes:
        leads: whether this rank leads the search.

    Raises:
        RankError: another rank died, or its part of the search failed.
    """

    def __init__(self, trainer: Any) -> None:
        self.size: int = trainer.world_size
        self.rank: int = trainer.global_rank
        self.strategy = trainer.strategy
        self.leads = self.rank == 0
        self._meetings = 0
        self._why: str | None = None
        self._leaving = threading.Event()

    def __enter__(self) -> Ranks:
        if self.size == 1:
            return self
        host = self.strategy.cluster_environment.main_address
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False) if self.leads else None
        port = self.strategy.broadcast(None if store is None else store.port)
        self._store = store or dist.TCPStore(host, port, wait_for_workers=False)
        # Code of the user's that is for rank 0 only runs in every training, as it would on one rank
        self._number, _rank_zero_only.rank = _rank_zero_only.rank, 0
        self._signals = SIGNAL is not None and threading.current_thread() is threading.main_thread()
        self._handler = signal.signal(SIGNAL, self._interrupt) if self._signals else None
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="tglo-ranks")
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if self.size == 1:
            return
        self._leaving.set()
        self._watcher.join(LEAVE_SECONDS)
        if self._signals:
            signal.signal(SIGNAL, self._handler or signal.SIG_DFL)
        _rank_zero_only.rank = self._number
        with suppress(RuntimeError):
            if kind is not None and self._why is None:
                self._store.compare_set("ended", "", f"Rank {self.rank} ended the search: {kind.__name__}: {error}")
            deadline = time.monotonic() + LEAVE_SECONDS
            while self.leads and self._store.add("left", 0) < self.size and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        del self._store
        if self._why is not None and isinstance(error, Exception | _Interrupted) and not isinstance(error, RankError):
            raise RankError(self._why) from (None if isinstance(error, _Interrupted) else error)

    def agree(self, data: str) -> None:
        """Raise ``ValueError`` if another rank has other data, told by a digest."""
        digests = self.exchange(data)
        for rank, other in enumerate(digests):
            if other != digests[0]:
                raise ValueError(
                    f"The data on rank {rank} differs from what rank 0 has, so candidates cannot be compared. Let "
                    "every rank see all data: call `seed_everything` before the data are split, leave "
                    "DistributedSampler to Lightning."
                )

    def spread(self, evaluator: Any) -> Any:
        """Return ``evaluator``, or on several ranks one that shares each population out among all. For rank 0."""
        if self.size == 1:
            return evaluator
        shared = _RankEvaluator(self, evaluator)
        self.order("evaluator", shared.name)
        return shared

    def follow(self, evaluator_for: Callable[[str], Any]) -> Any:
        """Train what rank 0 orders until it has the result; return that. For the other ranks.

        ``evaluator_for`` returns the evaluator of this rank, set up, by the name of that of rank 0.
        """
        with ExitStack() as parts:
            while True:
                order, *values = self.exchange()[0]
                if order == "finish":
                    return values[0]
                if order == "evaluator":
                    evaluator = parts.enter_context(closing(_RankEvaluator(self, evaluator_for(*values))))
                elif order == "start":
                    population = evaluator.start(*values)
                else:
                    getattr(population, order)(*values)

    def order(self, *order: Any) -> None:
        """On rank 0, let the other ranks do the same: call the method of this name with these arguments."""
        if self.leads:
            self.exchange(order)

    def exchange(self, value: Any = None) -> list[Any]:
        """Return the values of all ranks, once all have called this."""
        values = [value] * self.size
        if self.size > 1:
            self._together(lambda: dist.all_gather_object(values, value))
        return values

    def broadcast(self, value: Any, source: int) -> Any:
        """Return the value of rank ``source``, once all have called this."""
        return self._together(lambda: self.strategy.broadcast(value, source))

    def _together(self, collective: Callable[[], Any]) -> Any:
        """Run a collective once all ranks have come here."""
        self._meetings += 1
        try:
            self._store.add(f"meeting {self._meetings}", 1)
            while self._store.add(f"meeting {self._meetings}", 0) < self.size:
                self._check()
                time.sleep(POLL_SECONDS)
        except dist.DistError as error:
            raise RankError(_died("Rank 0")) from error
        self._check()
        try:
            return collective()
        except RuntimeError as error:
            raise RankError(_died("Another rank")) from error

    def _check(self) -> None:
        # An interruption gets lost while an object is destroyed
        if self._why is not None:
            raise RankError(self._why)

    def _interrupt(self, *_: Any) -> None:
        if not self._leaving.is_set():
            raise _Interrupted(self._why)

    def _watch(self) -> None:
        beats, silent = [0] * self.size, [0] * self.size
        try:
            while self._why is None and not self._leaving.wait(BEAT_SECONDS):
                self._store.add(f"beat {self.rank}", 1)
                for rank in range(1, self.size if self.leads else 0):
                    before, beats[rank] = beats[rank], self._store.add(f"beat {rank}", 0)
                    silent[rank] = silent[rank] + 1 if beats[rank] == before else 0
                    if silent[rank] >= SILENT_BEATS:
                        self._store.compare_set("ended", "", _died(f"Rank {rank}"))
                if self._store.check(["ended"]):
                    self._why = self._store.get("ended").decode()
            self._store.add("left", 1)
        except dist.DistError:
            self._why = _died("Rank 0")
        if self._why is not None and self._signals and not self._leaving.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)


class _RankEvaluator:
    """Starts populations that are shared out among the ranks."""

    def __init__(self, ranks: Ranks, inner: Any) -> None:
        self.ranks = ranks
        self.inner = inner
        self.name = getattr(inner, "name", type(inner).__name__)
        self.shares_passes = inner.shares_passes
        # Passes that a population is trained in, if that touches the last bits of a result
        self.parts = ranks.size if self.shares_passes else 1
        self._population: _RankPopulation | None = None

    def start(self, criteria: Sequence[Criterion], seed: int) -> _RankPopulation:
        """End the population before on this rank, and start a training for each criterion, on all ranks."""
        self._end()
        self._population = _RankPopulation(self.ranks, self.inner, criteria, seed)
        return self._population

    def close(self) -> None:
        self._end()
        self.inner.close()

    def _end(self) -> None:
        if self._population is not None:
            self._population.close()


class _RankPopulation:
    """A population that is shared out: rank 0 calls the methods, and orders the other ranks to call them too."""

    def __init__(self, ranks: Ranks, evaluator: Any, criteria: Sequence[Criterion], seed: int) -> None:
        ranks.order("start", criteria, seed)
        self.ranks = ranks
        self.members = list(range(len(criteria)))
        self.own = self.members[ranks.rank :: ranks.size]
        self._population: Any = None
        if self.own:
            self._population = evaluator.start([criteria[member] for member in self.own], seed)
        self._scores: Iterator[Evaluation] = iter(())
        self.length: int = self._population.length if self.own else 0
        self.trained = 0

    def advance(self, n: int) -> None:
        self.ranks.order("advance", n)
        self.trained = min(self.trained + n, self.length)
        if self.own:
            self._population.advance(n)

    def scores(self) -> Iterator[Evaluation]:
        """Score the members in rounds, of one member for each rank; yield the evaluations in order."""
        waiting = list(self.members)
        done: dict[int | None, Any] = {}
        size = self.ranks.size
        rounds = zip_longest(*([member for member in waiting if member % size == rank] for rank in range(size)))
        for number, members in enumerate(rounds):
            done |= zip(members, self.score(members, number == 0), strict=True)
            while waiting and waiting[0] in done:
                yield done.pop(waiting.pop(0))

    def score(self, members: Sequence[int | None], first: bool) -> list[Any]:
        """Score one member of each rank, or none; ``first`` begins anew."""
        self.ranks.order("score", members, first)
        if first and self.own:
            self._scores = self._population.scores()
        return self.ranks.exchange(None if members[self.ranks.rank] is None else next(self._scores))

    def keep(self, members: Sequence[int]) -> None:
        self.ranks.order("keep", members)
        self.members = sorted(members)
        if self.own:
            self._population.keep([self.own.index(member) for member in self.members if member in self.own])

    def weights(self, member: int) -> dict[str, Any]:
        """Return a member's weights on the CPU; of one that is done, until its rank scores the next."""
        self.ranks.order("weights", member)
        weights = self._population.weights(self.own.index(member)) if member in self.own else {}
        weights = {name: value.cpu() for name, value in weights.items()}
        sent: dict[str, Any] = self.ranks.broadcast(weights, member % self.ranks.size)
        return sent

    def state(self) -> dict[str, Any] | None:
        """Return what all ranks have noted at the start of this epoch."""
        self.ranks.order("state")
        own = [member for member in self.members if member in self.own]
        states = self.ranks.exchange(self._population.state() if own else {})
        trained = {state["trained"] for state in states if state}
        if None in states or len(trained) != 1:
            return None
        return {"trained": trained.pop(), "members": self.members, "ranks": states}

    def restore(self, state: dict[str, Any]) -> None:
        """Begin with what :meth:`state` has returned, on as many ranks as then."""
        states = state["ranks"]
        if len(states) != self.ranks.size:
            raise ValueError("another number of ranks")
        self.ranks.order("restore", state)
        self.trained, self.members = state["trained"], state["members"]
        if own := states[self.ranks.rank]:
            self._population.restore(own)
        elif self.own:
            self._population.keep([])

    def close(self) -> None:
        """End the trainings of this rank; the other ranks do so when the next population starts."""
        if self.own:
            self._population.close()


def _died(who: str) -> str:
    return (
        f"{who} died, so the search ends on all ranks. What was trained is in the journal, if there is one: "
        "start the same fit again to go on from there."
    )
