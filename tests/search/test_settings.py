"""The arguments of a search: short forms, checks by name, plain values."""

import json

import numpy as np
import pytest

from tglo_lightning.search import (
    CMAES,
    Budget,
    FamilySpace,
    Finals,
    Objective,
    ProductSpace,
    Race,
    RandomSearch,
    SearchSettings,
    TaylorSpace,
)


class Looking(RandomSearch):
    def train(self, population):
        population.advance(population.length)
        return population.scores()


def test_short_forms():
    settings = SearchSettings(space="smoothing", strategy="random", finals=3, budget=5)
    assert isinstance(settings.space, FamilySpace)
    assert isinstance(settings.strategy, RandomSearch)
    assert (settings.finals, settings.budget) == (Finals(confirm=3), Budget(epochs=5))
    assert isinstance(SearchSettings().for_places(2).space, ProductSpace)


def test_the_largest_number_of_trainings():
    settings = SearchSettings(generations=8, population=20, finals=Finals(finalists=5, seeds=2, confirm=10))
    assert settings.trainings == 8 * 20 + 5 * 2 + 2 * 10


def test_a_budget_as_long_as_the_fit():
    settings = SearchSettings()
    assert settings.for_fit(7, -1).budget == Budget(epochs=7, score="last")
    assert settings.for_fit(7, 100, "best").budget == Budget(steps=100, score="best")
    assert SearchSettings(budget=2).for_fit(7, 100).budget == Budget(epochs=2, score="last")
    longer = SearchSettings(budget=Budget(max_time=60, score="best")).for_fit(7, -1)
    assert longer.budget == Budget(epochs=7, max_time=60, score="best")
    for endless in (None, -1):
        with pytest.raises(ValueError, match="pass `budget=`"):
            settings.for_fit(endless, -1)


@pytest.mark.parametrize("strategy", [Race(), Looking()])
def test_a_strategy_that_rejects_by_itself_takes_no_limit(strategy):
    with pytest.raises(ValueError, match=f"`min_fitness_after` has no effect: {type(strategy).__name__} decides"):
        SearchSettings(strategy=strategy, budget=Budget(epochs=3, min_fitness_after=(1, 0.5)))


def test_every_training_has_a_seed_of_its_own():
    settings, other = SearchSettings(), SearchSettings(seed=1)
    seeds = [s.training_seed(stage, i) for s in (settings, other) for stage in ("generation", "choice", "confirmation")
             for i in range(20)]  # fmt: skip
    assert len(set(seeds)) == len(seeds)


def test_plain_values_that_tell_one_search_from_another():
    told = [
        json.dumps(SearchSettings(**options).to_dict(), allow_nan=False)
        for options in (
            {}, {"generations": np.int64(3)}, {"population": 5}, {"seed": np.int32(2)}, {"space": TaylorSpace(4)},
            {"strategy": "random"}, {"strategy": CMAES(0.5)}, {"finals": 3}, {"budget": 2}, {"budget": Budget(steps=2)},
        )
    ]  # fmt: skip
    assert len(set(told)) == len(told)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("generations", 0, ValueError),
        ("generations", 2.0, TypeError),
        ("generations", True, TypeError),
        ("population", 1, ValueError),
        ("population", "20", TypeError),
        ("seed", -1, ValueError),
        ("seed", 0.5, TypeError),
        ("space", "minimal", ValueError),
        ("space", 3, TypeError),
        ("strategy", "cma", ValueError),
        ("strategy", CMAES, TypeError),
        ("finals", 0, ValueError),
        ("budget", 0, ValueError),
        ("budget", "1", TypeError),
    ],
)
def test_wrong_arguments_are_named(argument, value, error):
    with pytest.raises(error, match=f"`{argument}`"):
        SearchSettings(**{argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [("num_classes", 1, ValueError), ("num_classes", 2.0, TypeError), ("mode", "maximum", ValueError)],
)
def test_wrong_objectives_are_named(argument, value, error):
    with pytest.raises(error, match=f"`{argument}`"):
        Objective(**{"num_classes": 10} | {argument: value})
