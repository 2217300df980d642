"""Ctrl-C, SIGTERM and SIGHUP end a search, also where the exception that they raise gets lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Windows has none
HANGUP: Any = getattr(signal, "SIGHUP", None)
_RUNNING = threading.RLock()


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Within, SIGINT raises ``KeyboardInterrupt``, SIGTERM and SIGHUP ``SystemExit``, at once.

    SIGTERM also does what it did before.

    Python drops an exception that a handler raises while an object is destroyed, and code that cleans up may raise
    another in its place. The search would go on, and hold the signal against a candidate. The function that this gives
    raises a lost exception again; it is called once more at the end.

    A SIGTERM or SIGHUP that is ignored, as under ``nohup``, stays so, and so do handlers of the user's own for SIGINT
    and SIGHUP, and all in another thread than the main one.

    Raises:
        RuntimeError: another thread of this process searches.
    """
    if not _RUNNING.acquire(blocking=False):
        raise RuntimeError(
            "Another thread of this process is searching for a loss, and searches share random generators. Run jobs in "
            "processes, not in threads."
        )
    lost: list[BaseException] = []

    def check() -> None:
        if lost:
            raise lost[0]

    def end(number: int, frame: Any) -> None:
        lost.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
        handler = before[number]
        if number == signal.SIGTERM and callable(handler):
            handler(number, frame)
        raise lost[-1]

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
            before[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
        if HANGUP is not None and signal.getsignal(HANGUP) == signal.SIG_DFL:
            before[HANGUP] = signal.SIG_DFL
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.default_int_handler
    for number in before:
        signal.signal(number, end)
    try:
        yield check
        check()
    finally:
        _RUNNING.release()
        for number, handler in before.items():
            # A Trainer that was interrupted ignores SIGINT from then on, to shut down in peace
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
