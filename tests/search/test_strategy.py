"""Strategies: what they draw, and that they go on where they were."""

import json
import math
import random

import numpy as np
import pytest
import torch
from helpers.searches import CENTRE, FREE, FULL, theta

from tglo_lightning.search import CMAES, FamilySpace, ProductSpace, RandomSearch, Space, Strategy, TaylorSpace
from tglo_lightning.search.portfolio import as_strategy

SPACES = {
    "one": FamilySpace("smoothing", step=False),
    "two": FamilySpace("smoothing"),
    "minimal": FREE,
    "constrained": TaylorSpace(4, constraint="stable"),
    "full": FULL,
    "product": ProductSpace([FULL, FULL]),
}


def cost(criterion):
    """The distance from a point; what is far on one side fails."""
    values = theta(criterion)
    return math.nan if values[-1] > 2 else sum((a - b) ** 2 for a, b in zip(values, CENTRE, strict=False))


def begun(kind, space, population=7, seed=3):
    strategy = kind()
    strategy.start(space.for_task(10), population, seed)
    return strategy


def generation(strategy):
    criteria = strategy.ask()
    strategy.tell([cost(criterion) for criterion in criteria])
    return criteria


@pytest.mark.parametrize(
    ("kind", "space", "population"),
    [
        # Small populations have some steps of their own within cma
        *((CMAES, space, population) for space in SPACES for population in (2, 4, 7)),
        (RandomSearch, "constrained", 7),
    ],
)
def test_a_state_goes_on_to_the_last_bit(kind, space, population):
    whole = begun(kind, SPACES[space], population)
    for number in range(12):
        text = json.dumps(whole.state_dict(), allow_nan=False)
        if number == 5:
            whole.retry()  # after a generation of nothing but failures
            text = json.dumps(whole.state_dict(), allow_nan=False)
        restored = begun(kind, SPACES[space], population)
        if number:
            restored.load_state_dict(json.loads(text))
            restored.rejected = whole.rejected
        expected = generation(whole)
        assert generation(restored) == expected
        assert restored.state_dict() == whole.state_dict()
        assert restored.metrics() == whole.metrics()
        assert restored.rejected == whole.rejected


@pytest.mark.parametrize("kind", [CMAES, RandomSearch])
def test_seeded_and_alone_with_its_generator(kind):
    def draws(seed):
        strategy = begun(kind, SPACES["constrained"], seed=seed)
        return [generation(strategy) for _ in range(3)]

    random.seed(1), np.random.seed(2), torch.manual_seed(3)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    first = draws(0)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002
    np.random.seed(4)  # noqa: NPY002
    assert draws(0) == first
    assert draws(1) != first


@pytest.mark.parametrize("population", [2, 3, 40])
def test_any_population(population):
    for kind in (CMAES, RandomSearch):
        assert len(generation(begun(kind, FREE, population))) == population


def test_cmaes_comes_nearer():
    strategy = begun(CMAES, FULL, 12)
    costs = [np.nanmean([cost(criterion) for criterion in generation(strategy)]) for _ in range(25)]
    assert costs[-1] < costs[0] / 4


def test_failures_rank_worst_not_median():
    """The distribution moves away from where candidates fail, though ``cma`` would take NaN for the median."""
    strategy = begun(CMAES, FULL, 10)
    share = []
    for _ in range(20):
        bad = [theta(criterion)[0] > 0 for criterion in strategy.ask()]
        strategy.tell([math.nan if failed else 0.0 for failed in bad])
        share.append(1 - np.mean(bad))
    assert share[-1] > 0.9 > share[0]


def test_a_flat_landscape_stays_finite():
    strategy = begun(CMAES, FREE, 4)
    for _ in range(200):
        strategy.tell([1.0] * len(strategy.ask()))
    json.dumps(strategy.state_dict(), allow_nan=False)


def test_a_retry_draws_nearer_to_the_centre():
    strategy = begun(CMAES, FULL, 200)
    before = np.std([theta(criterion) for criterion in strategy.ask()])
    assert strategy.retry()
    assert np.std([theta(criterion) for criterion in strategy.ask()]) == pytest.approx(before / 2, rel=0.1)
    assert not begun(RandomSearch, FULL).retry()


def test_random_search_draws_from_the_prior():
    class Prior(Space):
        axes, centre, spread = ("a", "b"), (3.0, -1.0), (0.1, 2.0)

        def decode(self, x):
            return FULL.decode([*x, *[0.0] * 6])

    values = np.array([theta(criterion)[:2] for criterion in begun(RandomSearch, Prior(), 2000).ask()])
    assert values.mean(0) == pytest.approx([3.0, -1.0], abs=0.15)
    assert values.std(0) == pytest.approx([0.1, 2.0], rel=0.1)


def test_strategies_by_their_names():
    class Mine(Strategy):
        def __init__(self, share=0.5, *, words="x"):
            self.share = share
            self.words = words
            self.counter = 0

        def ask(self):
            self.counter += 1
            return []

        def tell(self, costs):
            pass

    assert isinstance(as_strategy("random"), RandomSearch)
    assert as_strategy("cmaes").to_dict() == {"name": "tglo_lightning.search.strategy.CMAES", "sigma": 1.0}
    mine = as_strategy(Mine(0.3))
    mine.ask()
    assert mine.to_dict()["name"].endswith("Mine")
    assert {k: v for k, v in mine.to_dict().items() if k != "name"} == {"share": 0.3, "words": "x"}
    with pytest.raises(ValueError, match="`strategy` must be one of 'presets', 'warm', 'cmaes'"):
        as_strategy("cma")
    for wrong in (None, 3, CMAES):
        with pytest.raises(TypeError, match="`strategy` must be a name or an instance"):
            as_strategy(wrong)
    for sigma, error in ((0, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="`sigma`"):
            CMAES(sigma)
