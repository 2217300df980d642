"""A signal ends a search even where the exception that its handler raises gets lost."""

import os
import signal

import pytest

from tglo_lightning.search import Finals, minimize
from tglo_lightning.search.interruption import interruptible

RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit, signal.SIGHUP: SystemExit}


class Dropped:
    """Python drops what is raised while an object is destroyed."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)


def drop(number):
    Dropped(number)


def turn(number):
    """As code does that fails to clean up."""
    try:
        os.kill(os.getpid(), number)
    except BaseException as error:
        raise RuntimeError("cannot clean up") from error


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in RAISED}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", RAISED)
@pytest.mark.parametrize("lose", [drop, turn])
def test_a_lost_signal_is_held_against_no_candidate(tmp_path, number, lose):
    calls = []

    def fn(loss):
        calls.append(loss)
        if len(calls) == 6:
            lose(number)
        return float(len(calls))

    def run():
        finals = Finals(finalists=1, seeds=1, confirm=2)
        options = {"space": "taylorglo", "generations": 2, "population": 4}
        return minimize(fn, 3, **options, finals=finals, journal=journal, progress=False)

    journal = tmp_path / "search.jsonl"
    with pytest.raises(RAISED[number]):
        run()
    assert len(calls) == 6
    assert journal.read_bytes().count(b"\n") == 2 + (4 + 1) + 1  # header, settings; the state of a generation as well
    result = run()
    assert result.failed == 0
    assert [c.fitness for c in result.history] == [1, 2, 3, 4, 5, 7, 8, 9]


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in RAISED]
    with interruptible():
        assert [signal.getsignal(number) for number in RAISED] != before
    assert [signal.getsignal(number) for number in RAISED] == before


def test_sigint_that_is_ignored_or_handled_stays_so():
    for handler in (signal.SIG_IGN, lambda *_: None):
        signal.signal(signal.SIGINT, handler)
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is handler


def test_sigterm_does_what_it_did_before_as_well():
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with pytest.raises(SystemExit) as end, interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 143
    assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(number):
    signal.signal(number, signal.SIG_IGN)
    with interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_terminal_that_closes_ends_a_search():
    with pytest.raises(SystemExit) as end, interruptible():
        os.kill(os.getpid(), signal.SIGHUP)
    assert end.value.code == 128 + signal.SIGHUP
