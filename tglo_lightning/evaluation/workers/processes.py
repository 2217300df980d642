"""Score candidates in worker processes of one machine."""

from __future__ import annotations

import copy
import multiprocessing as mp
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import Any

import torch

from tglo_lightning.arguments import choice, integer, optional
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.limits import overdue
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.evaluation.workers.worker import score, spread_name, unpicklable
from tglo_lightning.search import Evaluation

__all__ = ["ProcessEvaluator"]

# A candidate whose worker is killed this often is given up
ATTEMPTS = 3
PARENT_CHECK_SECONDS = 5.0
# A worker ends an overdue training by itself, at the next batch; one that has not after so many seconds hangs
HANG_SECONDS = 5.0


@dataclass
class _Worker:
    process: Any
    connection: Connection
    task: int | None = None
    timeout: float | None = None
    deadline: float | None = None


class ProcessEvaluator:
    """Spreads the candidates over worker processes, one thread each.

    The workers live as long as the search: module, data and imports are paid once. A worker that is killed is replaced
    and its candidate run again; one that hangs beyond the candidates' time limit is killed and replaced. The results do
    not depend on which worker trains what.

    On the CPU workers of one thread are forked where the system can, all others are spawned: then module, data,
    callbacks and ``init`` must be picklable, and the script needs its ``if __name__ == "__main__":``.

    Args:
        workers: number of processes; by default one for each CPU core that this process may use, or each GPU.
        inner: evaluator that a worker trains one candidate with, by default :class:`TrainerEvaluator`.
        threads: threads of each worker.
        start_method: ``"fork"``, ``"spawn"`` or ``"forkserver"``, see :mod:`multiprocessing`; chosen by default.

    Raises:
        TypeError, ValueError: ``workers`` or ``threads`` no int of at least 1, or a ``start_method`` that the system
            does not have; by :meth:`evaluate`, something that cannot be pickled and has to.
    """

    fit: InnerFit

    def __init__(
        self, workers: int | None = None, *, inner: Any = None, threads: int = 1, start_method: str | None = None
    ) -> None:
        self.workers = optional(integer, "workers", workers, 1)
        self.start_method = optional(choice, "start_method", start_method, mp.get_all_start_methods())
        self.threads = integer("threads", threads, 1)
        self.inner = TrainerEvaluator() if inner is None else inner
        self._pool: list[_Worker] = []
        # Before multiprocessing waits for all processes at exit, where someone forgot to close
        Finalize(self, _end, args=(self._pool,), exitpriority=10)

    @property
    def name(self) -> str:
        """``"processes"``, with the name of the inner evaluator unless that is the Trainer's."""
        return spread_name("processes", self.inner)

    def with_inner(self, inner: Any) -> ProcessEvaluator:
        """The same evaluator, whose workers train with ``inner``."""
        return ProcessEvaluator(self.workers, inner=inner, threads=self.threads, start_method=self.start_method)

    def setup(self, fit: InnerFit) -> None:
        """Take on a search; the workers start with its first candidates."""
        self.close()
        self.fit = fit

    def close(self) -> None:
        """End the workers, and let go of what the search held."""
        _end(self._pool)
        vars(self).pop("fit", None)

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order, each as soon as it and those before it are known."""
        waiting = deque(range(len(thetas)))
        attempts = [0] * len(thetas)
        done: dict[int, Evaluation] = {}
        given = 0
        for rank in range(len(self._pool), min(self.count(), len(thetas))):
            self._pool.append(self._start(rank))
        try:
            while given < len(thetas):
                for worker in self._pool:
                    if worker.task is None and waiting:
                        worker.task = waiting.popleft()
                        attempts[worker.task] += 1
                        worker.timeout = self.fit.limited(thetas[worker.task]).timeout
                        self._send(worker, (thetas[worker.task], seed))
                for rank in self._ready():
                    task, evaluation = self._receive(rank)
                    if task is None:
                        continue
                    if evaluation is not None:
                        done[task] = evaluation
                    elif attempts[task] < ATTEMPTS:
                        waiting.appendleft(task)
                    else:
                        done[task] = Evaluation(
                            float("nan"), "crashed", 0.0, f"its worker process was killed {ATTEMPTS} times"
                        )
                while given in done:
                    yield done.pop(given)
                    given += 1
        except BaseException:
            # Half-finished work belongs to nobody
            _end(self._pool)
            raise

    # Workers

    def count(self) -> int:
        """Number of workers."""
        if self.workers is not None:
            return self.workers
        if self.fit.device.type == "cuda":
            return torch.cuda.device_count()
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def _start(self, rank: int) -> _Worker:
        # A forked process hangs where it uses the threads that its parent had
        forkable = self.fit.device.type == "cpu" and self.threads == 1 and "fork" in mp.get_all_start_methods()
        method = self.start_method or ("fork" if forkable else "spawn")
        context: Any = mp.get_context(method)
        fit = self.fit
        if fit.device.type == "cuda":
            fit = fit.on_device(torch.device("cuda", rank % torch.cuda.device_count()))
        ours, theirs = context.Pipe()
        inner = copy.copy(self.inner)
        process = context.Process(
            target=_work, args=(theirs, inner, fit, self.threads, os.getpid()), name=f"tglo-worker-{rank}"
        )
        try:
            process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            ours.close()
            raise unpicklable(f"ProcessEvaluator starts its workers by {method!r}", error) from error
        finally:
            theirs.close()
        return _Worker(process, ours)

    def _ready(self) -> list[int]:
        """Workers that have something to say, say nothing any more, or should have said something by now."""
        objects: list[Any] = []
        for worker in self._pool:
            objects += [worker.connection, worker.process.sentinel]
        deadlines = [worker.deadline for worker in self._pool if worker.deadline is not None]
        heard = wait(objects, max(0.0, min(deadlines) - time.monotonic()) if deadlines else None)
        return sorted({objects.index(item) // 2 for item in heard} | {r for r, w in enumerate(self._pool) if _hangs(w)})

    def _send(self, worker: _Worker, message: Any) -> None:
        # A dead worker is found out and replaced by `_receive`
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(message)

    def _receive(self, rank: int) -> tuple[int | None, Evaluation | None]:
        """The task that a worker ends and its evaluation, ``None`` for that if the worker is dead, and replaced; twice
        ``None`` where a worker only begins.
        """
        worker = self._pool[rank]
        task, hung = worker.task, _hangs(worker)
        with suppress(EOFError, ConnectionResetError):
            if worker.connection.poll():
                evaluation = worker.connection.recv()
                if evaluation is None:
                    if worker.timeout is not None:
                        worker.deadline = time.monotonic() + worker.timeout + HANG_SECONDS
                    return None, None
                worker.task = worker.deadline = None
                return task, evaluation
        seconds = (self.fit.budget.timeout or 0.0) + HANG_SECONDS
        _end([worker])
        self._pool[rank] = self._start(rank)
        if not hung:
            return task, None
        error = f"{overdue(self.fit.budget.timeout or 0.0)}; its worker process hung and was killed"
        return task, Evaluation(float("nan"), "timeout", seconds, error)


def _hangs(worker: _Worker) -> bool:
    return worker.deadline is not None and time.monotonic() >= worker.deadline


def _end(pool: list[_Worker]) -> None:
    """End the workers of ``pool``, and the processes that load their data, and empty it."""
    for worker in pool:
        worker.connection.close()
        with suppress(ProcessLookupError, PermissionError):
            # The worker may not be so far as to have a group of its own
            if hasattr(os, "killpg") and os.getpgid(worker.process.pid) == worker.process.pid:
                os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.kill()
    for worker in pool:
        worker.process.join()
        worker.process.close()
    pool.clear()


def _work(connection: Connection, inner: Any, fit: InnerFit, threads: int, parent: int) -> None:
    """A worker's life: take a candidate, train it, answer."""
    # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(threads)
    inner.setup(fit)
    while True:
        while not connection.poll(PARENT_CHECK_SECONDS):
            if os.getppid() != parent:
                os._exit(1)
        try:
            theta, seed = connection.recv()
        except EOFError:
            os._exit(0)
        # Only now: a spawned process takes its time to start
        connection.send(None)
        connection.send(score(inner, theta, seed))
