"""The race as such: who takes part, when it looks, whose network stays."""

import math
import random

import pytest
import torch

from tglo_lightning.search import (
    Criterion,
    Curves,
    Evaluation,
    Objective,
    ProductSpace,
    Race,
    SearchError,
    SearchResult,
    ShapeSpace,
    minimize,
    presets,
)
from tglo_lightning.search.budget import Budget
from tglo_lightning.search.racing import race
from tglo_lightning.search.settings import SearchSettings

OWN, SCE, GCE = Criterion.original(), Criterion.of("sce", [0.1, 1.0]), Criterion.of("gce", [0.7], step=3.0)
NAN = math.nan


class Scripted:
    """An evaluator whose members have given scores, one for each epoch; the weights tell member and epoch."""

    name, shares_passes = "scripted", False

    def __init__(self, *rows):
        self.rows = rows

    def start(self, criteria, seed):
        self.length, self.trained, self.closed = len(self.rows[0]), 0, False
        self.members = list(range(len(criteria)))
        return self

    def advance(self, n):
        self.trained += n

    def scores(self):
        for member in self.members:
            value = self.rows[member][self.trained - 1]
            yield Evaluation(value, "ok", float(self.trained)) if value == value else Evaluation(NAN, "diverged")

    def keep(self, members):
        self.members = list(members)

    def weights(self, member):
        return {"w": torch.tensor([member, self.trained])}

    def close(self):
        self.closed = True


def run(*rows, mode="max", **options):
    evaluator = Scripted(*rows)
    members = [Criterion.original(step) for step in (1, 2, 3, 4, 5)[: len(rows)]]
    settings = SearchSettings(
        strategy=Race(members, **({"halving": False} | options)), budget=Budget(epochs=len(rows[0]))
    )
    raced = race(evaluator, settings, Objective(3, "val/acc", mode, "own", ({},)))
    assert evaluator.closed
    values = raced.result.to_dict()
    assert SearchResult.from_dict(values).to_dict() == values
    return raced, raced.weights["w"].tolist()


def test_members():
    assert Race().criteria(ShapeSpace().for_task(10)) == presets(10)
    assert Race(3).criteria(ProductSpace([ShapeSpace()] * 2).for_task(10)) == presets(10, places=2)[:3]
    assert Race([SCE, GCE, SCE]).members == [OWN, SCE, GCE]
    assert Race([SCE, OWN]).members == [SCE, OWN]
    assert Race([SCE]).to_dict()["members"] == [OWN.to_dict(), SCE.to_dict()]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"members": 1}, ValueError),
        ({"members": 11}, ValueError),
        ({"members": []}, TypeError),
        ({"members": "sce"}, TypeError),
        ({"members": True}, TypeError),
        ({"check_every": 0}, ValueError),
        ({"check_every": 1.1}, ValueError),
        ({"score": "mean"}, ValueError),
        ({"halving": 1}, TypeError),
        ({"confirm": None}, TypeError),
    ],
)
def test_wrong_arguments(options, error):
    (name,) = options
    with pytest.raises(error, match=f"`{name}`"):
        Race(**options)


def test_a_search_is_no_race():
    with pytest.raises(ValueError, match="pass it to TaylorGLO"):
        minimize(lambda loss: 1.0, 3, strategy="race", generations=1, population=2, progress=False)


def test_checks_end_with_the_training_and_come_once_each():
    draws = random.Random(0)
    for _ in range(200):
        length, every = draws.randint(1, 60), draws.uniform(0.01, 1)
        checks = Race(check_every=every).checks(length)
        assert checks[-1] == length
        assert checks == sorted(set(checks))
        assert checks[0] >= 1
    assert Race(check_every=0.25).checks(100) == [25, 50, 75, 100]
    assert Race().checks(3) == [1, 2, 3]


def test_the_best_check_of_the_best_member():
    assert run([0.1, 0.5, 0.4], [0.2, 0.3, 0.45])[1] == [0, 2]
    assert run([0.1, 0.5, 0.4], [0.2, 0.3, 0.45], score="last")[1] == [1, 3]
    assert run([0.5, 0.2], [0.3, 0.4], mode="min")[1] == [0, 2]


def test_of_equal_ones_the_first_member_and_its_first_check():
    raced, kept = run([0.5, 0.5], [0.5, 0.5])
    assert kept == [0, 1]
    assert raced.result.kept == "original"
    raced, kept = run([0.4, 0.5], [0.5, 0.6])
    assert raced.result.kept == "metalearned"
    assert (raced.result.best.fitness, raced.result.original.fitness) == ((0.6,), (0.5,))


def test_a_member_that_fails_late_counts_with_its_best_check():
    raced, kept = run([0.1, 0.2, 0.3], [0.3, 0.9, NAN])
    assert kept == [1, 2]
    assert [entry.status for entry in raced.result.history] == ["ok", "ok"]
    assert run([0.1, 0.2, 0.3], [0.3, 0.9, NAN], score="last")[1] == [0, 3]
    # Nobody comes to the end: what each was before is better than nothing
    raced, kept = run([0.3, 0.2, NAN], [0.4, 0.1, NAN], score="last")
    assert kept == [0, 2]
    assert raced.result.best.fitness == (0.2,)
    with pytest.raises(SearchError, match="None of 2 members"):
        run([NAN, NAN], [NAN, NAN])


def test_halving_keeps_the_better_half_and_the_networks_of_the_others():
    rows = [[0.9, 0.1, 0.1, 0.1], [0.3, 0.3, 0.3, 0.3], [0.2, 0.2, 0.9, 0.95], [0.4, 0.5, 0.5, 0.5], [NAN] * 4]
    raced, kept = run(*rows, halving=True)
    assert kept == [0, 1]
    assert raced.result.curves.values[2][:1] == (0.2,)
    running = [sum(map(math.isfinite, column)) for column in zip(*raced.result.curves.values, strict=True)]
    assert running == [4, 3, 2, 2]


def test_curves_as_plain_values():
    curves = Curves("steps", (1, 2), (OWN, GCE), ((0.1, NAN), (0.2, 0.3)), 1, 2)
    again = Curves.from_dict(curves.to_dict())
    assert str(again) == str(curves)
    assert curves.to_dict()["values"] == [[0.1, None], [0.2, 0.3]]
    assert curves.names("own") == ["own", "gce, rate x 3"]
