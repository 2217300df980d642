"""The best moment of a training, in place of its end."""

import math

import pytest
from helpers.searches import Scored, run, sphere

from tglo_lightning.search import Budget, Criterion, Evaluation
from tglo_lightning.search.checks import BestCheck

CRITERIA = [Criterion.of("smoothing", [share]) for share in (0.1, 0.2, 0.3)]


def memorising(criterion, seed, trained):
    """Best at a third of the training; the first fails at its end, the last from the start."""
    share = criterion.losses[0].theta[0]
    if share == 0.3 or (share == 0.1 and trained == 30):
        return Evaluation(math.nan, "diverged", trained)
    return Evaluation(share + (trained if trained <= 10 else 20 - trained), seconds=trained)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_check_counts(mode):
    sign = 1 if mode == "max" else -1

    def score(*args):
        found = memorising(*args)
        return Evaluation(sign * found.fitness, found.status, found.seconds)

    evaluator = Scored(score, length=30)
    population = BestCheck(evaluator.start(CRITERIA, 0), mode)
    population.advance(30)
    first, second, third = population.scores()
    # Checks come every 3 epochs
    assert first.fitness == pytest.approx(sign * 9.1)
    assert second.fitness == pytest.approx(sign * 9.2)
    assert (second.seconds, third.status) == (30, "diverged")
    assert len(evaluator.seen) == 30
    population.keep([1])
    assert [e.fitness for e in population.scores()] == [second.fitness]
    population.close()
    assert evaluator.open == 0


def test_pieces_make_no_difference():
    whole, parts = (BestCheck(Scored(memorising, length=30).start(CRITERIA[:2], 0), "max") for _ in range(2))
    whole.advance(30)
    for n in (3, 6, 21):
        parts.advance(n)
    assert [e.fitness for e in whole.scores()] == [e.fitness for e in parts.scores()]


def test_a_search_by_the_best_check():
    """Every training counts by its best moment, that of the original loss as well."""

    def score(criterion, seed, trained):
        own = sphere(criterion, seed, original=0.0)
        return Evaluation(own.fitness - abs(trained - 4))

    best = run(Scored(score, length=8), budget=Budget(epochs=8, score="best"))
    last = run(Scored(score, length=8), budget=Budget(epochs=8, score="last"))
    assert best.history[0].fitness == pytest.approx(last.history[0].fitness + 4)
    assert best.original.mean == pytest.approx(last.original.mean + 4)
    assert best.settings["budget"]["score"] == "best"
