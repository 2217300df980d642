"""Trainings that can wait: functions that hand control back and forth with their caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.module.loaders import nothing
from tglo_lightning.search.seeding import saved_states

__all__ = ["Pausable", "Stopped"]

JOIN_SECONDS = 10.0
LOOK_SECONDS = 0.5


class Stopped(BaseException):
    """Ends a training that nobody waits for. Not an ``Exception``, so that no handler of the module holds it up."""


class Pausable:
    """A function in a thread of its own. Caller and function never run at the same time.

    A Trainer's fit cannot be left and entered again: its set-up and teardown would run twice. So it waits in its
    thread, at the point that it has come to, and finds the random states as it left them.

    Args:
        function: what to run; it calls :meth:`pause` to wait.
        generators: what it draws from beside the global generators.

    Attributes:
        ended: whether the function has ended.
        alone: whether it ran in the caller's thread.
    """

    def __init__(self, function: Callable[[], Any], generators: Sequence[Any] = ()) -> None:
        self.function, self.generators = function, generators
        self.ended = self.alone = False
        self._error: BaseException | None = None
        self._stopped = False
        self._caller, self._function = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._put_back: Callable[[], None] = nothing

    def resume(self, *, to_end: bool = False) -> bool:
        """Run the function to its next pause or its end. Return whether it has ended; raise what it raised.

        With ``to_end`` a function that has not begun runs in the caller's thread, without a pause.
        """
        if to_end and self._thread is None:
            self.alone = True
            self.function()
            self.ended = True
            return True
        self._put_back()
        try:
            if self._thread is None:
                threads = torch.get_num_threads()
                self._thread = threading.Thread(target=self._run, args=(threads,), daemon=True, name="tglo-training")
                self._thread.start()
                self._wait()
            elif not self.ended:
                self._function.release()
                self._wait()
        except BaseException:
            # Ctrl-C in the caller: the function must not run on beside it
            self.close()
            raise
        if self._error is not None:
            raise self._error
        self._put_back = saved_states(self.generators)
        return self.ended

    def pause(self) -> None:
        """Wait for the next :meth:`resume`. To be called by the function."""
        if not self.alone:
            self._caller.release()
            self._function.acquire()
            self.check()

    def check(self) -> None:
        """Raise :class:`Stopped` if the caller has closed this. To be called by the function now and then."""
        if self._stopped:
            raise Stopped

    def close(self) -> None:
        """End the function where it waits."""
        if self._thread is not None and not self.ended:
            self._stopped = True
            with isolated(self.generators):
                self._function.release()
                self._thread.join(JOIN_SECONDS)

    def _wait(self) -> None:
        """Wait for the function in short turns: a signal that comes just before a wait does not end that wait."""
        while not self._caller.acquire(timeout=LOOK_SECONDS):
            pass

    def _run(self, threads: int) -> None:
        # A new thread would take the default, and sums of other parts differ in their last bits
        torch.set_num_threads(threads)
        try:
            self.function()
        except Stopped:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.ended = True
            self._caller.release()
