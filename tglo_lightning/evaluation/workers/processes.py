"""Train candidates in worker processes of one machine."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import signal
import sys
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from threading import Lock, Thread
from typing import Any

import torch

from tglo_lightning.arguments import choice, integer, optional
from tglo_lightning.evaluation.workers.pool import PoolEvaluator, Slot
from tglo_lightning.evaluation.workers.worker import Worker

__all__ = ["ProcessEvaluator"]

PARENT_CHECK_SECONDS = 1.0
PR_SET_PDEATHSIG = 1


class ProcessEvaluator(PoolEvaluator):
    """Spreads the candidates over worker processes, one thread each.

    The workers live as long as the search, and end with the process that started them, however that ends. One that is
    killed is replaced and its candidate run again; one that hangs beyond the candidates' time limit is killed and
    replaced. The results do not depend on which worker trains what.

    On the CPU workers of one thread are forked if the system can, all others are spawned: then module, data, callbacks
    and ``init`` must be picklable, and the script needs its ``if __name__ == "__main__":``.

    Args:
        workers: number of processes; by default one for each CPU core that this process may use, or each GPU.
        inner: evaluator that a worker trains one candidate with, by default :class:`TrainerEvaluator`.
        threads: threads of each worker.
        start_method: ``"fork"`` or ``"spawn"``, see :mod:`multiprocessing`; chosen by default.

    Raises:
        TypeError, ValueError: ``workers`` or ``threads`` no int of at least 1, or a ``start_method`` that the system
            does not have.
    """

    kind = "processes"
    advice = 'Spawned workers import the script, which needs its `if __name__ == "__main__":`.'

    def __init__(
        self, workers: int | None = None, *, inner: Any = None, threads: int = 1, start_method: str | None = None
    ) -> None:
        super().__init__(inner)
        self.workers = optional(integer, "workers", workers, 1)
        methods = [method for method in ("fork", "spawn") if method in mp.get_all_start_methods()]
        self.start_method = optional(choice, "start_method", start_method, methods)
        self.threads = integer("threads", threads, 1)

    def count(self) -> int:
        """Return the number of workers."""
        if self.workers is not None:
            return self.workers
        if self.fit.device.type == "cuda":
            return torch.cuda.device_count()
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def open(self, rank: int) -> Slot:
        """Start a worker."""
        fit = self.fit.on_gpu(rank % max(1, torch.cuda.device_count()))
        # A forked process hangs if it uses the threads that its parent had
        forkable = fit.device.type == "cpu" and self.threads == 1 and "fork" in mp.get_all_start_methods()
        context: Any = mp.get_context(self.start_method or ("fork" if forkable else "spawn"))
        ours, theirs = context.Pipe()
        args = (theirs, os.getpid(), (self.inner, fit), self.threads)
        process = context.Process(target=_serve, args=args, name=f"tglo-worker-{rank}")
        process.start()
        theirs.close()
        # Also at exit, before multiprocessing waits for all processes, should someone forget to close
        close = Finalize(None, _kill, args=(process,), exitpriority=10)
        submit = partial(_submit, ours, Lock())
        return Slot(rank, submit, submit("drop", -1), (_Died,), close)


class _Died(Exception):
    """A worker process is dead."""


def _submit(connection: Connection, turn: Any, method: str, *args: Any) -> Future[Any]:
    """Call a method of the worker at the other end, when it is this call's turn."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            with turn:
                connection.send((method, args))
                answer = connection.recv()
        except (EOFError, OSError):
            answer = _Died()
        except Exception as error:
            answer = error
        future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)

    # Unlike those of an executor, a daemon thread does not keep the program from ending
    Thread(target=call, daemon=True).start()
    return future


def _kill(process: Any) -> None:
    """Kill a worker, and the processes that load its data."""
    with suppress(ProcessLookupError, PermissionError):
        # The worker may not be so far as to have a group of its own
        if hasattr(os, "killpg") and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    process.close()


def _serve(connection: Connection, parent: int, held: tuple[Any, Any], threads: int) -> None:
    """A worker's life: take a call, answer."""
    # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        # At once, also within a call that holds the interpreter's lock
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _end_with(parent)
    if hasattr(os, "fork"):
        os.setpgrp()
        # Processes that load data notice by themselves only after 5 seconds
        os.register_at_fork(after_in_child=lambda: _end_with(os.getppid()))
    worker = Worker()
    worker.setup(held, threads)
    with suppress(EOFError):
        while True:
            method, args = connection.recv()
            try:
                answer = getattr(worker, method)(*args)
            except Exception as error:
                answer = error
            connection.send(answer)


def _end_with(parent: int) -> None:
    """End this process soon after its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
