"""What ends a candidate's training early, with every evaluator."""

import time

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import loaders
from helpers.modules import classifier, quiet_trainer, seeded

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import ProcessEvaluator, VectorizedEvaluator, processes
from tglo_lightning.evaluation.limits import out_of_memory
from tglo_lightning.losses import TaylorGLOLoss

SETTINGS = {"generations": 1, "population": 4, "candidate_epochs": 3, "finalists": 1, "repeats": 1}
EVALUATORS = ["trainer", "sequential", "vectorized", "processes"]


def fit(tmp_path, module, evaluator, data=None, **kwargs):
    search = TaylorGLO(**(SETTINGS | kwargs), evaluator=evaluator)
    quiet_trainer(pl, tmp_path, callbacks=[search], max_epochs=1).fit(module, **(data or loaders()))
    return search.result


def chosen(criterion):
    """Whether this is one of the candidates that a test treats badly, some of them."""
    return isinstance(criterion, TaylorGLOLoss) and bool(criterion.theta.sum() > 1)


class Slow(classifier(pl)):
    """Trains some candidates slowly, and hangs in one batch of them where so told."""

    seconds = 0.8

    def training_step(self, batch, batch_idx):
        if chosen(self.criterion):
            time.sleep(self.seconds)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("evaluator", ["trainer", "processes"])
def test_slow_candidates_are_given_up(tmp_path, evaluator):
    result = fit(tmp_path, seeded(Slow), evaluator, population=2, candidate_epochs=1, candidate_timeout=2.0)
    assert {c.status for c in result.history} == {"ok", "timeout"}
    for candidate in result.history:
        assert (candidate.status == "timeout") == (sum(candidate.theta) > 1)
        if candidate.status == "timeout":
            assert candidate.error == "not done within candidate_timeout=2 s"
            assert 2 <= candidate.seconds < 5
    assert [finalist.mean for finalist in result.finalists] == pytest.approx([result.best.mean])


def test_a_worker_that_hangs_is_killed(tmp_path, monkeypatch):
    class Hung(Slow):
        seconds = 600

    monkeypatch.setattr(processes, "HANG_SECONDS", 0.5)
    result = fit(tmp_path, seeded(Hung), ProcessEvaluator(2), population=2, candidate_timeout=2.0)
    assert {c.status for c in result.history} == {"ok", "timeout"}
    assert all(("hung and was killed" in c.error) == (c.status == "timeout") for c in result.history if c.error)


@pytest.mark.parametrize("evaluator", ["sequential", "vectorized"])
def test_a_pass_that_is_slow_is_given_up(tmp_path, evaluator):
    """Together the candidates have the time of all; the original loss has no limit."""

    class Late(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            if isinstance(self.criterion, TaylorGLOLoss):
                time.sleep(0.2)
            super().validation_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match=r"timeout: not done within candidate_timeout=0\.05 s"):
        fit(tmp_path, seeded(Late), evaluator, population=2, candidate_epochs=1, candidate_timeout=0.05)


@pytest.mark.parametrize(
    "budget", [{"candidate_epochs": 4}, {"candidate_steps": 11, "candidate_epochs": None}], ids=str
)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_hopeless_candidates_are_given_up(tmp_path, evaluator, budget):
    def run(**kwargs):
        return fit(tmp_path, seeded(classifier(pl), lr=0.02), evaluator, population=6, seed=4, **budget, **kwargs)

    free = run()
    limit = 0.61 if "candidate_steps" not in budget else 0.57
    limited = run(min_fitness_after=(2, limit))
    statuses = [c.status for c in limited.history]
    assert set(statuses) == {"ok", "hopeless"}
    for before, after in zip(free.history, limited.history, strict=True):
        assert before.theta == after.theta
        if after.status == "ok":
            # to look is to leave as it is
            assert after.fitness == before.fitness
        else:
            assert after.error.startswith("val/acc was 0.")
            assert after.error.endswith(
                f"after 2 {'epochs' if budget['candidate_epochs'] else 'steps'}, min_fitness_after asks for {limit}"
            )
    assert limited.original.fitness == free.original.fitness


def test_looking_early_changes_no_random_numbers(tmp_path):
    class Noisy(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            super().validation_step((batch[0] + torch.randn_like(batch[0]), batch[1]), batch_idx)

    def run(**kwargs):
        budget = {"candidate_epochs": None, "candidate_steps": 10}
        return fit(tmp_path, seeded(Noisy), "trainer", **budget, **kwargs)

    free, limited = run(), run(min_fitness_after=(4, 0.0))
    assert [c.fitness for c in limited.history] == [c.fitness for c in free.history]


def test_smaller_is_better(tmp_path):
    class Error(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            self.log("val/error", (self(batch[0]).argmax(1) != batch[1]).float().mean())

    options = {"monitor": "val/error", "mode": "min", "min_fitness_after": (1, 0.9), "seed": 4}
    assert {c.status for c in fit(tmp_path, seeded(Error), "trainer", **options).history} == {"ok"}


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("candidate_timeout", 0, ValueError),
        ("candidate_timeout", float("nan"), ValueError),
        ("candidate_timeout", "1", TypeError),
        ("candidate_timeout", True, TypeError),
        ("min_fitness_after", 1, TypeError),
        ("min_fitness_after", "12", TypeError),
        ("min_fitness_after", (1,), TypeError),
        ("min_fitness_after", (0.5, 0.1), TypeError),
        ("min_fitness_after", (1, "0.1"), TypeError),
        ("min_fitness_after", (0, 0.1), ValueError),
        ("min_fitness_after", (3, 0.1), ValueError),
        ("min_fitness_after", (1, float("inf")), ValueError),
    ],
)
def test_wrong_limits_are_named(argument, value, error):
    with pytest.raises(error, match=rf"`{argument}(\[[01]\])?`"):
        TaylorGLO(candidate_epochs=3, **{argument: value})


class Full(classifier(pl)):
    """Has memory for two candidates at once, on any device."""

    error = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory")


@pytest.mark.parametrize(
    "error", [MemoryError(), Full.error, torch.cuda.OutOfMemoryError("CUDA out of memory.")], ids=repr
)
def test_a_chunk_without_memory_is_halved(tmp_path, monkeypatch, error):
    from tglo_lightning.evaluation.vectorized.evaluator import _Population

    expected = fit(tmp_path / "all", seeded(classifier(pl)), "vectorized")
    clip = _Population._clip

    def crowded(population, trainer):
        if population.chunks[0].size > 2:
            raise error
        clip(population, trainer)

    monkeypatch.setattr(_Population, "_clip", crowded)
    evaluator = VectorizedEvaluator()
    result = fit(tmp_path / "halves", seeded(classifier(pl)), evaluator)
    assert evaluator.chunk_size == 2
    assert result.failed == 0
    assert [c.fitness for c in result.history] == pytest.approx([c.fitness for c in expected.history])


def test_other_errors_are_not_of_memory():
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("not enough memory"))
