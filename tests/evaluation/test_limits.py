"""What ends a candidate's training early, with every evaluator."""

import math
import time
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from helpers.fits import CRITERIA, fitness, inner_fit, running, trained
from helpers.modules import classifier, seeded

from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.evaluation.limits import Clock, TimedOut, out_of_memory
from tglo_lightning.evaluation.vectorized.loop import PopulationLoop
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import Budget, Criterion, Finals, Objective, SearchSettings, search

EVALUATORS = {
    "trainer": TrainerEvaluator,
    "sequential": lambda: VectorizedEvaluator(chunk_size=1),
    "vectorized": VectorizedEvaluator,
}
ORIGINAL = Criterion.original()


def searched(evaluator, fit, population=6, mode="max", **kwargs):
    """The result of one generation and one confirmation."""
    finals = Finals(finalists=1, seeds=0, confirm=1)
    settings = SearchSettings(1, population, "taylorglo", finals=finals, budget=fit.budget, seed=4, **kwargs)
    with running(EVALUATORS[evaluator](), fit) as chosen:
        return search(chosen, settings, Objective(3, fit.monitor, mode))


class Counted(classifier(pl)):
    """Counts its steps and how often a training begins."""

    steps = starts = 0

    def training_step(self, batch, batch_idx):
        Counted.steps += 1
        Counted.starts += self.trainer.global_step == 0
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(("unit", "limit"), [("epochs", 0.61), ("steps", 0.57)])
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_what_is_not_good_enough_is_rejected_and_nobody_begins_again(tmp_path, evaluator, unit, limit):
    length = {"epochs": 4, "steps": 11}[unit]
    fit = inner_fit(pl, tmp_path, seeded(Counted, lr=0.02), budget=Budget(**{unit: length}))
    free = searched(evaluator, fit)
    Counted.steps = Counted.starts = 0
    limited = searched(evaluator, fit.with_budget(Budget(**{unit: length}, min_fitness_after=(2, limit))))
    rejected = [c for c in limited.history if c.status == "rejected"]
    assert 0 < len(rejected) < 6
    for before, after in zip(free.history, limited.history, strict=True):
        assert before.criterion == after.criterion
        if after.status == "ok":
            # to look is to leave as it is
            assert after.fitness == before.fitness
        else:
            assert after.error.startswith("val/acc was 0.")
            assert after.error.endswith(f"after 2 {unit}, min_fitness_after asks for {limit}")
    assert limited.original.fitness == free.original.fitness
    if evaluator == "trainer":
        per_unit = 6 if unit == "epochs" else 1
        # candidates, then the finalist and the original
        assert Counted.steps == per_unit * (2 * len(rejected) + length * (6 - len(rejected) + 2))
        assert Counted.starts == 6 + 2


def test_smaller_is_better(tmp_path):
    class Error(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            self.log("val/error", (self(batch[0]).argmax(1) != batch[1]).float().mean())

    budget = Budget(epochs=2, min_fitness_after=(1, 0.9))
    fit = inner_fit(pl, tmp_path, seeded(Error), budget=budget, monitor="val/error")
    assert {c.status for c in searched("trainer", fit, 3, "min").history} == {"ok"}


class Slow(classifier(pl)):
    """Trains metalearned losses slowly."""

    def training_step(self, batch, batch_idx):
        if isinstance(self.criterion, TaylorGLOLoss):
            time.sleep(0.1)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("pieces", [(), (1,)], ids=["at once", "in pieces"])
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_slow_candidates_are_given_up(tmp_path, evaluator, pieces):
    """Together the candidates of a pass have the time of all; the original loss has no limit."""
    fit = inner_fit(pl, tmp_path, seeded(Slow), budget=Budget(steps=40, timeout=0.3))
    with running(EVALUATORS[evaluator](), fit) as chosen:
        population = chosen.start([CRITERIA[0], ORIGINAL], 1)
        for piece in (*pieces, 40):
            population.advance(piece)
            slow, original = population.scores()
        assert slow.status == "timeout"
        assert slow.error == "not done within timeout=0.3 s"
        assert 0.3 <= slow.seconds < 3
        assert original.ok
        # Given up once and for all
        assert next(iter(population.scores())) == slow
        population.close()


def test_a_validation_has_its_part_of_the_time(tmp_path):
    class Late(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            time.sleep(0.2)
            super().validation_step(batch, batch_idx)

    fit = inner_fit(pl, tmp_path, seeded(Late), budget=Budget(steps=1, timeout=0.15))
    for evaluator in EVALUATORS.values():
        with running(evaluator(), fit) as chosen:
            population = chosen.start(CRITERIA[:2], 1)
            population.advance(1)
            assert [score.status for score in population.scores()] == ["timeout"] * 2
            population.close()


def test_the_clock_of_several_trainings():
    clock = Clock(timeout=0.1, count=4)
    with clock.running():
        time.sleep(0.2)
        clock.check()
    assert 0.05 <= clock.seconds < 0.1
    # Three of them have ended; what they took does not count for the last
    clock.count = 1
    clock.check()
    with clock.running():
        time.sleep(0.1)
        with pytest.raises(TimedOut, match=r"timeout=0\.1 s"):
            clock.check()
    seconds = clock.seconds
    time.sleep(0.01)
    assert clock.seconds == seconds


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_training_that_diverges_disturbs_nobody(tmp_path, evaluator):
    fit = inner_fit(pl, tmp_path, seeded(classifier(pl)), budget=Budget(steps=6), gradient_clip_val=1.0)
    wild = replace(CRITERIA[2], step=1e30)
    with running(EVALUATORS[evaluator](), fit) as chosen:
        population = chosen.start([CRITERIA[0], wild, CRITERIA[1]], 1)
        population.advance(3)
        list(population.scores())
        population.advance(3)
        first, second, third = population.scores()
        population.close()
    assert second.status == "diverged"
    assert "not finite" in second.error or "the loss is" in second.error
    assert math.isnan(second.fitness)
    assert [first.fitness, third.fitness] == fitness(EVALUATORS[evaluator](), fit, CRITERIA[:2])


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a piece"])
@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory"), torch.cuda.OutOfMemoryError("CUDA")],
    ids=["python", "cpu", "cuda"],
)
def test_a_chunk_without_memory_is_halved(tmp_path, monkeypatch, error, late):
    fit = inner_fit(pl, tmp_path, seeded(classifier(pl)), budget=Budget(steps=4))
    expected, _ = trained(VectorizedEvaluator(), fit, CRITERIA)
    clip = PopulationLoop._clip

    def crowded(loop, trainer):
        if loop.chunks[0].size > 2 and trainer.global_step >= 2 * late:
            raise error
        clip(loop, trainer)

    monkeypatch.setattr(PopulationLoop, "_clip", crowded)
    evaluator = VectorizedEvaluator()
    scores, _ = trained(evaluator, fit, CRITERIA, pieces=(2,) if late else ())
    assert evaluator.chunk_size == 2
    assert [score.fitness for score in scores] == [score.fitness for score in expected]


def test_other_errors_are_not_of_memory():
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("not enough memory"))
