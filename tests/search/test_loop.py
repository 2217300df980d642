"""The search itself, with evaluators that train nothing."""

import itertools
import json
import math
import random

import numpy as np
import pytest
import torch

from tglo_lightning.losses.functional import num_parameters
from tglo_lightning.search import Evaluation, SearchError, SearchResult, SearchSettings, count_trainings, search
from tglo_lightning.theory import to_minimal, trainability

CENTRE = [0.5, -0.5, 1.0, 0.2, -0.3, 0.8, 0.1, -0.6]


class Sphere:
    """Fitness is minus the squared distance from a point; the original loss has a fitness of its own."""

    def __init__(self, original: float = -1e6, sign: float = 1.0) -> None:
        self.original = original
        self.sign = sign
        self.seeds: list[int] = []
        self.seen: list[list[float] | None] = []

    def score(self, theta: list[float]) -> Evaluation:
        return Evaluation(-self.sign * sum((t - c) ** 2 for t, c in zip(theta, CENTRE, strict=False)))

    def evaluate(self, thetas, seed):
        self.seeds.append(seed)
        for theta in thetas:
            self.seen.append(theta)
            yield Evaluation(self.sign * self.original) if theta is None else self.score(theta)


class Failing(Sphere):
    """Every third candidate fails, by turns with NaN, an error, a divergence."""

    def score(self, theta):
        turn = len(self.seen)
        if turn % 3:
            return super().score(theta)
        return [
            Evaluation(math.nan),
            Evaluation(math.nan, "crashed", error="RuntimeError: boom"),
            Evaluation(math.nan, "diverged"),
        ][turn // 3 % 3]


def settings(**kwargs) -> SearchSettings:
    return SearchSettings(**({"generations": 3, "population": 6, "finalists": 2, "repeats": 2} | kwargs))


def run(evaluator, num_classes: int = 10, **kwargs) -> SearchResult:
    names = ("mode", "listener", "monitor", "original_name")
    return search(
        evaluator,
        settings(**{k: v for k, v in kwargs.items() if k not in names}),
        num_classes=num_classes,
        **{k: v for k, v in kwargs.items() if k in names},
    )


@pytest.mark.parametrize("parameterization", ["full", "minimal"])
def test_fitness_improves_over_generations(parameterization):
    result = run(Sphere(), generations=25, population=12, parameterization=parameterization, constraint=None)
    first = np.mean([c.fitness for c in result.history if c.generation == 0])
    last = np.mean([c.fitness for c in result.history if c.generation == 24])
    assert last > first / 2 if parameterization == "full" else last > first + 1
    assert result.kept == "metalearned"
    assert len(result.best.theta) == num_parameters(3)


def test_history_holds_every_candidate_in_order():
    evaluator = Sphere()
    result = run(evaluator)
    assert [(c.generation, c.index) for c in result.history] == [(g, i) for g in range(3) for i in range(6)]
    assert [c.theta for c in result.history] == evaluator.seen[:18]
    assert result.candidates == 18
    assert result.failed == 0
    assert all(c.status == "ok" and c.seconds >= 0 for c in result.history)
    # population x generations, then (finalists + original) x repeats
    assert len(evaluator.seen) == 18 + 2 * 3 == count_trainings(settings())


def test_minimal_candidates_have_no_dead_directions():
    result = run(Sphere(), parameterization="minimal", order=4, constraint=None)
    for candidate in result.history:
        assert len(candidate.theta) == num_parameters(4)
        assert candidate.theta[:2] == [0, 0]
        assert to_minimal(torch.tensor(candidate.theta)).shape == (6,)


def test_failures_are_counted_and_never_win():
    result = run(Failing(), generations=4, finalists=20)
    statuses = [c.status for c in result.history]
    assert result.failed == sum(status != "ok" for status in statuses) == 8
    assert {"ok", "crashed", "diverged"} == set(statuses)
    # a NaN that comes as "ok" counts as a divergence
    assert all(math.isnan(c.fitness) for c in result.history if c.status != "ok")
    assert next(c.error for c in result.history if c.status == "crashed") == "RuntimeError: boom"
    good = [c.theta for c in result.history if c.status == "ok"]
    assert all(finalist.theta in good for finalist in result.finalists)
    assert len(result.finalists) == len(good)


def test_failures_rank_worst_not_median():
    """The distribution moves away from where candidates fail, though ``cma`` would take NaN for the median."""

    class HalfSpace(Sphere):
        def score(self, theta):
            return Evaluation(math.nan, "diverged") if theta[0] > 0 else Evaluation(0.0)

    result = run(HalfSpace(), generations=20, population=10, constraint=None, parameterization="full")
    share = [np.mean([c.theta[0] <= 0 for c in result.history if c.generation == g]) for g in (0, 19)]
    assert share[1] > 0.9 > share[0]


def test_a_generation_without_a_valid_candidate_is_drawn_nearer_and_nearer():
    class Far(Sphere):
        """Only what is near to the origin can be trained, as with steps that are too long."""

        def score(self, theta):
            near = sum(t**2 for t in theta) < 50
            return super().score(theta) if near else Evaluation(math.nan, "diverged", error="the loss is nan")

    def far(**kwargs):
        return run(Far(), sigma=6.0, generations=2, constraint=None, parameterization="full", seed=2, **kwargs)

    listener = Listener()
    with pytest.warns(UserWarning, match="No candidate of generation 0 could be trained; drawing it again with half"):
        result = far(listener=listener)
    first = [c for c in result.history if c.generation == 0]
    assert len(first) == 12
    assert [c.index for c in first] == list(range(len(first)))
    assert not any(c.status == "ok" for c in first[:-6])
    assert any(c.status == "ok" for c in first[-6:])
    widths = [np.std([c.theta for c in first[start : start + 6]]) for start in range(0, len(first), 6)]
    assert all(2 * b == pytest.approx(a, rel=0.5) for a, b in itertools.pairwise(widths))
    assert listener.metrics[0]["failed"] == sum(c.status != "ok" for c in first)
    with pytest.warns(UserWarning, match="drawing it again"):
        again = far()
    assert [c.theta for c in again.history] == [c.theta for c in result.history]


def test_only_failures_are_an_error_that_says_why():
    class Broken(Sphere):
        def score(self, theta):
            error = "TimeoutError: slow" if len(self.seen) % 6 == 0 else "ValueError: no"
            return Evaluation(math.nan, "crashed", error=error)

    evaluator = Broken(original=0.5)
    with (
        pytest.warns(UserWarning, match="drawing it again"),
        pytest.raises(
            SearchError, match=r"None of 24 candidates.*\(20 of 24 and 1 other reason\): crashed: ValueError: no"
        ),
    ):
        run(evaluator)
    assert len(evaluator.seen) == 24


def test_do_no_harm():
    assert run(Sphere(original=1.0)).kept == "original"
    assert run(Sphere(original=-1e6)).kept == "metalearned"
    # the beaten finalist and its figures are there all the same
    result = run(Sphere(original=1.0))
    assert result.best is result.finalists[0]
    assert result.original.theta is None
    assert result.original.mean == 1.0


def test_a_tie_keeps_the_original():
    class Flat(Sphere):
        def score(self, theta):
            return Evaluation(0.7)

    assert run(Flat(original=0.7)).kept == "original"


def test_an_original_that_fails_is_beaten():
    assert run(Sphere(original=math.nan)).kept == "metalearned"


def test_a_finalist_that_fails_once_is_not_kept():
    class Once(Sphere):
        def score(self, theta):
            final = len(self.seeds) > 3
            return Evaluation(math.nan, "diverged") if final and len(self.seeds) == 5 else super().score(theta)

    result = run(Once())
    assert result.kept == "original"
    assert math.isnan(result.finalists[0].mean)
    assert math.isnan(result.finalists[0].std)


@pytest.mark.parametrize("original", [1e6, -1.0])
def test_minimising_mirrors_maximising(original):
    up = run(Sphere(original=-original))
    down = run(Sphere(original=-original, sign=-1.0), mode="min")
    assert down.kept == up.kept
    assert down.best.theta == up.best.theta
    assert [c.theta for c in down.history] == [c.theta for c in up.history]
    assert [c.fitness for c in down.history] == [-c.fitness for c in up.history]


def test_finalists_are_the_best_evaluated_candidates():
    result = run(Sphere(), finalists=3)
    best = sorted((c.fitness for c in result.history), reverse=True)[:3]
    assert sorted((f.found for f in result.finalists), reverse=True) == best
    for finalist in result.finalists:
        (candidate,) = [c for c in result.history if c.theta == finalist.theta]
        assert (candidate.fitness, candidate.generation) == (finalist.found, finalist.generation)
        assert len(finalist.fitness) == 2
    means = [f.mean for f in result.finalists]
    assert means == sorted(means, reverse=True)


def test_every_round_has_a_seed_of_its_own():
    evaluator = Sphere()
    run(evaluator, generations=4, repeats=3)
    assert len(set(evaluator.seeds)) == len(evaluator.seeds) == 7


def test_deterministic_and_seeded():
    one, two, other = run(Sphere()), run(Sphere()), run(Sphere(), seed=1)
    assert [c.theta for c in one.history] == [c.theta for c in two.history]
    assert one.best == two.best
    assert one.history[0].theta != other.history[0].theta


def test_global_generators_are_untouched():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    run(Sphere(), constraint="stable", parameterization="minimal")
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after


def test_global_generators_do_not_matter():
    np.random.seed(1)  # noqa: NPY002
    one = run(Sphere())
    np.random.seed(2)  # noqa: NPY002
    assert [c.theta for c in run(Sphere()).history] == [c.theta for c in one.history]


@pytest.mark.parametrize("name", ["exact", "stable", "published"])
@pytest.mark.parametrize("parameterization", ["full", "minimal"])
def test_constraint_holds_of_every_candidate(name, parameterization):
    result = run(Sphere(), num_classes=5, constraint=name, parameterization=parameterization, seed=1)
    assert all(getattr(trainability(c.theta, 5), name) for c in result.history)
    assert result.infeasible > 0
    assert result.candidates == 18


def test_no_constraint_refuses_nothing():
    assert run(Sphere(), constraint=None).infeasible == 0


def test_constraint_of_ones_own_sees_plain_floats_and_is_counted():
    refused = []

    def positive(theta):
        assert all(type(value) is float for value in theta)
        if theta[2] <= 0:
            refused.append(theta)
        return theta[2] > 0

    result = run(Sphere(), constraint=positive, parameterization="full")
    assert all(c.theta[2] > 0 for c in result.history)
    assert result.infeasible == len(refused) > 0
    assert result.settings["constraint"].endswith("positive")


def test_impossible_constraint():
    with pytest.raises(ValueError, match=r"`constraint` refused 10,\d* draws in a row"):
        run(Sphere(), constraint=lambda theta: False)


def test_result_survives_a_round_trip_through_json():
    result = run(Failing(), constraint="exact")
    text = json.dumps(result.to_dict(), allow_nan=False)
    again = SearchResult.from_dict(json.loads(text))
    assert again.to_dict() == result.to_dict()
    assert again.best == result.best
    assert [c.status for c in again.history] == [c.status for c in result.history]
    assert all(math.isnan(c.fitness) for c in again.history if c.status != "ok")
    assert again.settings == result.settings
    assert again.best.formula == result.best.formula


def test_numpy_numbers_become_plain():
    class Numpy(Sphere):
        def score(self, theta):
            return Evaluation(np.float64(super().score(theta).fitness), seconds=np.float32(0.5))

    result = run(Numpy(), generations=np.int64(2), sigma=np.float32(1.0), seed=np.int32(3))

    def plain(value):
        if isinstance(value, dict):
            return all(plain(v) for v in value.values())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (int, float, str, bool)

    assert plain(result.to_dict())
    torch.save(result.to_dict(), "/dev/null")


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.best: list[float] = []
        self.metrics: list[dict] = []

    def on_evaluation(self, stage, evaluation, best):
        self.stages.append(stage)
        self.best.append(best)

    def on_generation(self, metrics):
        self.metrics.append(metrics)


def test_listener_follows():
    listener = Listener()
    result = run(Failing(), listener=listener)
    assert listener.stages == ["generation"] * 18 + ["final"] * 6
    finite = [best for best in listener.best if math.isfinite(best)]
    assert finite == sorted(finite)
    assert [m["generation"] for m in listener.metrics] == [0, 1, 2]
    assert sum(m["failed"] for m in listener.metrics) == result.failed
    assert sum(m["infeasible"] for m in listener.metrics) == result.infeasible
    for metrics in listener.metrics:
        population = [c.fitness for c in result.history if c.generation == metrics["generation"] and c.status == "ok"]
        assert metrics["fitness_best"] == max(population)
        assert metrics["fitness_worst"] == min(population)
        assert metrics["fitness_mean"] == pytest.approx(np.mean(population))
        assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("generations", 0, ValueError),
        ("generations", 2.0, TypeError),
        ("generations", True, TypeError),
        ("population", 1, ValueError),
        ("population", "20", TypeError),
        ("order", 1, ValueError),
        ("order", None, TypeError),
        ("finalists", 0, ValueError),
        ("repeats", 0, ValueError),
        ("repeats", [3], TypeError),
        ("seed", -1, ValueError),
        ("seed", 0.5, TypeError),
        ("sigma", 0, ValueError),
        ("sigma", -1.0, ValueError),
        ("sigma", math.nan, ValueError),
        ("sigma", math.inf, ValueError),
        ("sigma", "1", TypeError),
        ("sigma", True, TypeError),
        ("constraint", "exakt", ValueError),
        ("constraint", 3, ValueError),
        ("parameterization", "tiny", ValueError),
        ("parameterization", None, ValueError),
    ],
)
def test_wrong_settings_are_named(argument, value, error):
    with pytest.raises(error, match=f"`{argument}`"):
        SearchSettings(**{argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [("num_classes", 1, ValueError), ("num_classes", 2.0, TypeError), ("mode", "maximum", ValueError)],
)
def test_wrong_arguments_of_search_are_named(argument, value, error):
    with pytest.raises(error, match=f"`{argument}`"):
        search(Sphere(), settings(), **({"num_classes": 10} | {argument: value}))


@pytest.mark.parametrize("population", [2, 3, 40])
def test_any_population(population):
    assert run(Sphere(), population=population, generations=2).candidates == 2 * population


def test_a_flat_landscape_stays_finite():
    class Flat(Sphere):
        def score(self, theta):
            return Evaluation(1.0)

    result = run(Flat(), generations=200, population=4, constraint=None)
    assert all(math.isfinite(value) for c in result.history for value in c.theta)


def test_an_original_that_crashed_was_not_beaten():
    class Lost(Sphere):
        def evaluate(self, thetas, seed):
            for theta, evaluation in zip(thetas, super().evaluate(thetas, seed), strict=True):
                lost = theta is None and len(self.seeds) == 5
                yield Evaluation(math.nan, "crashed", 0.0, "killed") if lost else evaluation

    result = run(Lost())
    assert result.kept == "original"
    assert result.original.errors == ["crashed: killed"]
    assert SearchResult.from_dict(result.to_dict()).original.errors == result.original.errors
