"""A pool gives the results of nested Trainers, in pieces or at once, whatever happens to its workers."""

import os
import signal
import threading
import time
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers import fits
from helpers.data import blobs, loader, loaders
from helpers.fits import CRITERIA, equal, fitness, nested, running, trained
from helpers.modules import seeded
from helpers.workers import Slow, Top, at, evaluate, kill, workers

from tglo_lightning.evaluation import ProcessEvaluator, TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.evaluation.workers import pool
from tglo_lightning.search import Budget, Criterion

inner_fit = partial(fits.inner_fit, pl)
EPOCHS = Budget(epochs=3)


def scores(population, n):
    population.advance(n)
    return [evaluation.fitness for evaluation in population.scores()]


@pytest.mark.parametrize("inner", [None, VectorizedEvaluator(chunk_size=1)], ids=["trainer", "sequential"])
def test_results_are_those_of_the_inner_evaluator_bit_for_bit(tmp_path, inner):
    fit = inner_fit(tmp_path, seeded(Top))
    criteria = [*CRITERIA[:3], Criterion.original()]
    expected = fitness(TrainerEvaluator() if inner is None else inner, fit, criteria)
    with running(ProcessEvaluator(2, inner=inner), fit) as evaluator:
        assert [e.fitness for e in evaluate(evaluator, criteria)] == expected
        first = workers()
        assert [e.fitness for e in evaluate(evaluator, CRITERIA[:2], 2)] == nested(fit, CRITERIA[:2], 2)
        assert workers() == first
    assert evaluator.name == ("processes" if inner is None else "processes-sequential")


@pytest.mark.parametrize("look", [True, False])
def test_a_population_in_pieces_is_one_at_once(tmp_path, look):
    shuffled = loader(blobs(seed=1), shuffle=True, generator=torch.Generator().manual_seed(3))
    data = loaders() | {"train_dataloaders": shuffled}
    fit = inner_fit(tmp_path, seeded(Top), data, Budget(steps=10))
    expected, weights = trained(TrainerEvaluator(), fit, CRITERIA[:3])
    found, own = trained(ProcessEvaluator(2), fit, CRITERIA[:3], pieces=[4, 3], look=look)
    assert [e.fitness for e in found] == [e.fitness for e in expected]
    assert equal(own, weights)


def test_keep_ends_the_other_trainings_in_their_workers(tmp_path):
    with running(ProcessEvaluator(1), inner_fit(tmp_path, seeded(Top), budget=EPOCHS)) as evaluator:
        population = evaluator.start(CRITERIA[:2], 1)
        scores(population, 1)
        population.keep([1])
        [slot] = evaluator.slots
        with pytest.raises(KeyError):
            slot.submit("weights", population._keys[0]).result()
        assert population.weights(1)
        population.close()
        with pytest.raises(KeyError):
            slot.submit("weights", population._keys[1]).result()


def test_weights_are_copies_of_the_training_as_it_stands(tmp_path):
    fit = inner_fit(tmp_path, seeded(Top), budget=EPOCHS)
    expected = [trained(TrainerEvaluator(), fit.with_budget(Budget(epochs=n)))[1][1] for n in (1, 2, 3)]
    with running(ProcessEvaluator(1), fit) as evaluator:
        population = evaluator.start(CRITERIA[:2], 1)
        scores(population, 1)
        found = [population.weights(1)]
        scores(population, 1)
        kill(*workers())
        found.append(population.weights(1))
        # Both are done, and member 1 is forgotten: it trains again
        scores(population, 1)
        found.append(population.weights(1))
    assert equal(found, expected)


def test_killed_worker_is_replaced_and_its_candidate_run_again(tmp_path):
    fit = inner_fit(tmp_path, seeded(Slow))
    with running(ProcessEvaluator(2), fit) as evaluator:
        population = evaluator.start(CRITERIA[:4], 1)
        population.advance(3)
        rest = population.scores()
        found = [next(rest).fitness]
        busy = workers()
        for victim in busy:
            kill(victim)
        found += [evaluation.fitness for evaluation in rest]
        assert not set(busy) & set(workers())
    assert found == nested(fit, CRITERIA[:4])


def test_member_whose_worker_dies_while_it_waits_is_trained_again(tmp_path):
    fit = inner_fit(tmp_path, seeded(Top), budget=EPOCHS)
    with running(ProcessEvaluator(2), fit) as evaluator:
        population = evaluator.start(CRITERIA[:4], 1)
        scores(population, 1)
        kill(workers()[0])
        assert scores(population, 2) == nested(fit, CRITERIA[:4])


def test_candidate_that_kills_its_workers_is_given_up(tmp_path):
    fit = inner_fit(tmp_path, seeded(at(1, lambda: kill(os.getpid()))))
    with running(ProcessEvaluator(2), fit) as evaluator:
        evaluations = evaluate(evaluator, CRITERIA[:3])
    assert [e.status for e in evaluations] == ["ok", "crashed", "ok"]
    assert evaluations[1].error == "its worker process was killed 3 times"


def test_worker_that_hangs_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "HANG_SECONDS", 0.5)
    fit = inner_fit(tmp_path, seeded(at(1, lambda: time.sleep(600))), budget=Budget(steps=3, timeout=4.0))
    with running(ProcessEvaluator(2), fit) as evaluator:
        population = evaluator.start(CRITERIA[:3], 1)
        population.advance(3)
        evaluations = list(population.scores())
        with pytest.raises(RuntimeError, match=r"Candidate 1 has no weights: .* hung"):
            population.weights(1)
    assert [e.status for e in evaluations] == ["ok", "timeout", "ok"]
    assert evaluations[1].error == "not done within timeout=4 s; its worker process hung and was killed"


def test_the_original_loss_has_no_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "HANG_SECONDS", 0.1)
    with running(ProcessEvaluator(1), inner_fit(tmp_path, seeded(Slow), budget=Budget(steps=3, timeout=0.1))) as one:
        statuses = [evaluation.status for evaluation in evaluate(one, [CRITERIA[0], Criterion.original()])]
    assert statuses == ["timeout", "ok"]


def test_an_exception_is_a_crash_and_stays_one(tmp_path):
    def fail():
        raise RuntimeError("no such luck")

    with running(ProcessEvaluator(2), inner_fit(tmp_path, seeded(at(1, fail)))) as evaluator:
        population = evaluator.start(CRITERIA[:3], 1)
        for n in (1, 2):
            population.advance(n)
            evaluations = list(population.scores())
            assert [e.status for e in evaluations] == ["ok", "crashed", "ok"]
            assert evaluations[1].error == "RuntimeError: no such luck"


def test_workers_at_work_end_with_an_exception_in_the_parent(tmp_path):
    fit = inner_fit(tmp_path, seeded(at(4, lambda: time.sleep(600))))
    with running(ProcessEvaluator(2), fit) as evaluator:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            population = evaluator.start(CRITERIA[3:], 1)
            population.advance(3)
            rest = population.scores()
            assert next(rest).ok
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                next(rest)
        finally:
            signal.signal(signal.SIGINT, before)
        assert len(workers()) == 1
        assert [e.fitness for e in evaluate(evaluator, CRITERIA[:2])] == nested(fit, CRITERIA[:2])


def test_workers_at_work_end_when_no_more_is_asked_for(tmp_path):
    fit = inner_fit(tmp_path, seeded(at(1, lambda: time.sleep(600))))
    with running(ProcessEvaluator(2), fit) as evaluator:
        population = evaluator.start(CRITERIA[:2], 1)
        population.advance(3)
        next(population.scores())
        population.close()
        # Two, if the second worker had not begun; neither is at work, or this would take ten minutes
        assert len(workers()) in (1, 2)
        assert [e.fitness for e in evaluate(evaluator, CRITERIA[2:4])] == nested(fit, CRITERIA[2:4])
