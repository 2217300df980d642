"""The search itself, with evaluators that train nothing."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from helpers.searches import FREE, FULL, OBJECTIVE, Halving, Scored, plain, run, settings, sphere, theta

from tglo_lightning.search import (
    CMAES,
    Budget,
    Criterion,
    Evaluation,
    Objective,
    SearchError,
    SearchResult,
    Strategy,
    TaylorSpace,
)

# Generations, a choice between two from two seeds, a confirmation from three
TRAININGS = 3 * 6 + 2 * 2 + 2 * 3


def failing(criterion, seed, trained):
    """Every third candidate or so fails: as NaN, by an error, by a divergence."""
    turn = round(1000 * sum(theta(criterion))) % 9
    failures = {
        0: Evaluation(math.nan),
        3: Evaluation(math.nan, "crashed", error="RuntimeError: boom"),
        6: Evaluation(math.nan, "diverged"),
    }
    return sphere(criterion, seed) if criterion.is_original else failures.get(turn, sphere(criterion, seed))


def test_history_holds_every_candidate_in_order():
    evaluator = Scored()
    result = run(evaluator)
    assert [(c.generation, c.index) for c in result.history] == [(g, i) for g in range(3) for i in range(6)]
    assert [c.criterion for c in result.history] == evaluator.seen[:18]
    assert (result.candidates, result.failed, result.rejected) == (18, 0, (0, 0, 0))
    assert len(evaluator.seen) == TRAININGS == result.trainings == settings().trainings
    assert len(set(evaluator.seeds)) == len(evaluator.seeds) == 3 + 2 + 3
    assert evaluator.open == 0
    assert (result.kept, result.criterion) == ("metalearned", result.best.criterion)


def test_do_no_harm():
    result = run(Scored(lambda c, seed, _: sphere(c, seed, original=1e6)))
    assert (result.kept, result.criterion) == ("original", Criterion.original())
    assert result.best.criterion == result.finalists[0].criterion
    assert result.gain < 0


def test_minimising_mirrors_maximising():
    def turned(criterion, seed, trained):
        return Evaluation(-sphere(criterion, seed).fitness)

    up, down = run(), run(Scored(turned), Objective(10, mode="min"))
    assert (down.kept, down.best.criterion) == (up.kept, up.best.criterion)
    assert [c.criterion for c in down.history] == [c.criterion for c in up.history]
    assert [c.fitness for c in down.history] == [-c.fitness for c in up.history]


def test_failures_are_counted_and_never_win():
    result = run(Scored(failing), generations=4)
    statuses = [c.status for c in result.history]
    assert result.failed == sum(status != "ok" for status in statuses) > 3
    # a NaN that comes as "ok" counts as a divergence
    assert {"ok", "crashed", "diverged"} == set(statuses)
    assert all(math.isnan(c.fitness) for c in result.history if c.status != "ok")
    assert next(c.error for c in result.history if c.status == "crashed") == "RuntimeError: boom"
    good = [c.criterion for c in result.history if c.status == "ok"]
    assert all(finalist.criterion in good for finalist in result.finalists)


def near(criterion, seed, trained):
    """Only what is near to the origin can be trained, as with steps that are too long."""
    lost = Evaluation(math.nan, "diverged", error="the loss is nan")
    return lost if sum(t**2 for t in theta(criterion)) > 50 else sphere(criterion, seed)


def test_a_generation_of_nothing_but_failures_is_drawn_nearer_and_nearer():
    def far(**options):
        return run(Scored(near), generations=2, space=FULL, strategy=CMAES(8.0), seed=2, **options)

    listener = Listener()
    with pytest.warns(UserWarning, match="No candidate of generation 1 could be trained; drawing it again nearer"):
        result = far(listener=listener)
    first = [c for c in result.history if c.generation == 0]
    assert len(first) > 6
    assert [c.index for c in first] == list(range(len(first)))
    assert not any(c.status == "ok" for c in first[:-6])
    assert any(c.status == "ok" for c in first[-6:])
    widths = [np.std([theta(c.criterion) for c in first[start : start + 6]]) for start in range(0, len(first), 6)]
    assert all(2 * b == pytest.approx(a, rel=0.5) for a, b in itertools.pairwise(widths))
    assert listener.metrics[0]["failed"] == sum(c.status != "ok" for c in first)
    with pytest.warns(UserWarning, match="drawing it again"):
        assert plain(far()) == plain(result)


@pytest.mark.parametrize(("strategy", "tries"), [("cmaes", 4), ("random", 1)])
@pytest.mark.filterwarnings("ignore:No candidate of generation")
def test_only_failures_are_an_error_that_says_why(strategy, tries):
    evaluator = Scored()

    def broken(criterion, seed, trained):
        error = "TimeoutError: slow" if len(evaluator.seen) % 6 == 0 else "ValueError: no"
        return Evaluation(math.nan, "crashed", error=error)

    evaluator.score = broken
    counts = rf"\({5 * tries} of {6 * tries} and 1 other reason\)"
    with pytest.raises(
        SearchError, match=rf"None of {6 * tries} candidates of generation 1.*{counts}: crashed: ValueError: no"
    ):
        run(evaluator, strategy=strategy)
    assert len(evaluator.seen) == 6 * tries
    assert evaluator.open == 0


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.stages, self.best, self.metrics = [], [], []

    def on_evaluation(self, stage, evaluation, best):
        self.stages.append(stage)
        self.best.append(best)

    def on_generation(self, metrics):
        self.metrics.append(metrics)


def test_a_listener_follows():
    listener = Listener()
    result = run(Scored(failing), listener=listener, space=TaylorSpace(constraint="stable"))
    assert listener.stages == ["generation"] * 18 + ["choice"] * 4 + ["confirmation"] * 6
    finite = [best for best in listener.best if math.isfinite(best)]
    assert finite == sorted(finite)
    assert finite[-1] == max(c.fitness for c in result.history if c.status == "ok")
    assert [m["generation"] for m in listener.metrics] == [1, 2, 3]
    assert sum(m["failed"] for m in listener.metrics) == result.failed
    assert tuple(m["rejected"] for m in listener.metrics) == result.rejected
    for metrics in listener.metrics:
        population = [c for c in result.history if c.generation == metrics["generation"] - 1 and c.status == "ok"]
        fitness = [c.fitness for c in population]
        assert (metrics["fitness_best"], metrics["fitness_worst"]) == (max(fitness), min(fitness))
        assert metrics["fitness_mean"] == pytest.approx(np.mean(fitness))
        leader = max(population, key=lambda c: c.fitness)
        assert [metrics[f"theta_{i}"] for i in range(8)] == theta(leader.criterion)
        assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("mode", ["max", "min"])
def test_early_rejection_restarts_nobody(mode):
    """All train for two epochs of five; those that are not good enough then are rejected, the original never."""
    evaluator = Scored(length=5)
    sign = 1 if mode == "max" else -1

    def score(criterion, seed, trained):
        return Evaluation(sign * sphere(criterion, seed, trained).fitness)

    evaluator.score = score
    result = run(evaluator, Objective(10, "val/acc", mode), budget=Budget(epochs=5, min_fitness_after=(2, sign * -2.5)))
    rejected = [c for c in result.history if c.status == "rejected"]
    assert 0 < len(rejected) < 18
    assert all("after 2 epochs, min_fitness_after asks for" in c.error for c in rejected)
    assert evaluator.trained == 2 * len(rejected) + 5 * (TRAININGS - len(rejected))
    assert math.isfinite(result.original.mean)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_strategy_may_look_at_candidates_while_they_train(mode):
    sign = 1 if mode == "max" else -1
    evaluator = Scored(lambda *given: Evaluation(sign * sphere(*given).fitness), length=3)
    result = run(evaluator, Objective(10, mode=mode), strategy=Halving())
    assert result.failed == 0
    assert evaluator.trained == 3 * (6 + 3 + 1) + 3 * (TRAININGS - 18)
    # of the same criteria the one that trains to its end gets better by that; it was the best before
    best = max(result.history[:6], key=lambda c: sign * c.fitness)
    assert sign * best.fitness == pytest.approx(sphere(best.criterion, evaluator.seeds[0], 3).fitness)


HALF, SCORE = Criterion.original(0.5), Evaluation(1.0)


class Wrong(Strategy):
    """Does what it is told."""

    def __init__(self, asked=(HALF,), scores=(SCORE,)):
        self._asked, self._scores = asked, scores

    def ask(self):
        return list(self._asked)

    def tell(self, costs):
        pass

    def train(self, population):
        return self._scores

    def metrics(self):
        return {"speed": math.nan, "size": np.float32(2)}


def test_a_strategy_that_is_wrong_is_told_what():
    with pytest.raises(TypeError, match=r"Wrong.ask\(\) must return criteria, got \[\]"):
        run(strategy=Wrong(()))
    with pytest.raises(TypeError, match=r"Wrong.ask\(\) must return criteria, got \[\[0\.5\]\]"):
        run(strategy=Wrong(([0.5],)))
    with pytest.raises(ValueError, match=r"Wrong.train\(\) must yield one evaluation for each of 1 candidates, got 0"):
        run(strategy=Wrong(scores=()))
    listener = Listener()
    run(strategy=Wrong(), listener=listener)
    assert "speed" not in listener.metrics[0]
    assert listener.metrics[0]["size"] == 2


def test_numpy_numbers_become_plain():
    def scored(criterion, seed, trained):
        return Evaluation(np.float64(sphere(criterion, seed).fitness), seconds=np.float32(0.5))

    result = run(Scored(scored), generations=np.int64(2), seed=np.int32(3), strategy=CMAES(np.float32(1)))

    def is_plain(value):
        if isinstance(value, dict):
            return all(map(is_plain, value.values()))
        return all(map(is_plain, value)) if isinstance(value, list) else type(value) in (int, float, str, bool)

    values = {name: value for name, value in result.to_dict().items() if name != "history"}
    assert is_plain(values["settings"]["strategy"])
    json.dumps(result.to_dict(), allow_nan=False)
    torch.save(result.to_dict(), "/dev/null")


def test_a_result_is_complete_and_says_how_it_was_found():
    result = run(objective=Objective(7, "val/acc", "max", "CrossEntropyLoss", ({"ignore_index": 2},)))
    assert (result.monitor, result.original.name) == ("val/acc", "CrossEntropyLoss")
    told = settings().to_dict() | {"num_classes": 7, "evaluator": "scored", "original_options": [{"ignore_index": 2}]}
    assert result.settings == told
    assert SearchResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_the_same_object_searches_twice_alike():
    strategy = CMAES()
    assert plain(run(strategy=strategy)) == plain(run(strategy=strategy)) == plain(run())
    assert run(seed=1).history[0].criterion != run().history[0].criterion
    assert OBJECTIVE.mode == "max"
    assert FREE.num_classes == 2
