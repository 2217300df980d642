"""Trainings that wait in threads of their own."""

import os
import signal
import threading
import time

import pytest
import pytorch_lightning as pl
from helpers.fits import CRITERIA, inner_fit, running
from helpers.modules import classifier, seeded

from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.evaluation.pausing import Pausable
from tglo_lightning.search import Budget


@pytest.fixture(autouse=True)
def _interruptible():
    """Run in the background, a test ignores Ctrl-C from its start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_function_and_caller_take_turns():
    steps = []

    def function():
        for number in range(3):
            steps.append(number)
            pausable.pause()

    pausable = Pausable(function)
    for number in range(3):
        assert not pausable.resume()
        assert steps[-1] == number
    assert pausable.resume()
    assert pausable.resume()


def test_an_error_reaches_the_caller():
    def function():
        pausable.pause()
        raise ValueError("no such luck")

    pausable = Pausable(function)
    pausable.resume()
    for _ in range(2):
        with pytest.raises(ValueError, match="no such luck"):
            pausable.resume()


def test_close_ends_the_function_where_it_waits():
    cleaned = []

    def function():
        try:
            pausable.pause()
            cleaned.append("not reached")
        except Exception:
            cleaned.append("not reached either")
        finally:
            cleaned.append("cleaned")

    pausable = Pausable(function)
    pausable.close()
    pausable.resume()
    pausable.close()
    assert pausable.ended
    assert cleaned == ["cleaned"]


def test_a_caller_that_is_interrupted_takes_the_function_with_it():
    def function():
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            time.sleep(0.01)
            pausable.check()

    pausable = Pausable(function)
    with pytest.raises(KeyboardInterrupt):
        pausable.resume()
    assert pausable.ended


@pytest.mark.parametrize("stage", ["training_step", "validation_step"])
@pytest.mark.parametrize("kind", [TrainerEvaluator, VectorizedEvaluator])
def test_ctrl_c_ends_paused_and_running_trainings(tmp_path, kind, stage):
    """Also where the search waits for another thread; what is left is the main thread, long before step 300."""

    class Interrupted(classifier(pl)):
        armed = False
        later = None

        def _step(self, name):
            if Interrupted.later is not None:
                Interrupted.later += 1
                # 299 of them take 15 seconds
                time.sleep(0.05)
            if Interrupted.armed and name == stage and not self.trainer.sanity_checking:
                Interrupted.armed, Interrupted.later = False, 0
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)

        def training_step(self, batch, batch_idx):
            self._step("training_step")
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self._step("validation_step")
            super().validation_step(batch, batch_idx)

    fit = inner_fit(pl, tmp_path, seeded(Interrupted), budget=Budget(steps=400))
    with running(kind(), fit) as evaluator:
        population = evaluator.start(CRITERIA[:3], 1)
        population.advance(2)
        list(population.scores())
        population.advance(300)
        Interrupted.armed = True
        started = time.monotonic()
        in_main = kind is VectorizedEvaluator and stage == "validation_step"
        # Lightning ends the program if it validates in the main thread
        with pytest.raises(SystemExit if in_main else KeyboardInterrupt):
            list(population.scores())
        population.close()
    if in_main:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert Interrupted.later < 100
    assert time.monotonic() - started < 60
    assert [thread.name for thread in threading.enumerate() if "tglo" in thread.name] == []
