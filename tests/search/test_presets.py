"""What is tried on any task, and where a search starts."""

import json
import math

import pytest
import torch

from tglo_lightning.losses import GCELoss, robust
from tglo_lightning.losses.priors import Prior, prior
from tglo_lightning.search import (
    Criterion,
    FamilySpace,
    Finals,
    LossSpec,
    Presets,
    SearchResult,
    SearchSettings,
    ShapeSpace,
    StepSpace,
    TaylorSpace,
    WarmCMAES,
    minimize,
    presets,
)
from tglo_lightning.search.prior import prior_space
from tglo_lightning.theory import to_minimal, to_shape

UNBALANCED = (0.6, 0.3, 0.1)


def test_the_presets():
    found = presets(10)
    assert found[0] == Criterion.original()
    assert found[1] == Criterion.of("smoothing", [0.1])
    shared = tuple(robust(10).theta.tolist())
    pairs = [(criterion.losses[0].family, criterion.step) for criterion in found[2:]]
    assert pairs == [(name, rate) for rate in (1.0, 0.3, 3.0, 0.1) for name in ("sce", "taylorglo")]
    assert {criterion.losses[0].theta for criterion in found[3::2]} == {shared}
    assert len(presets(3, priors=(0.4, 0.3, 0.3))) == 10


@pytest.mark.parametrize(("name", "theta"), [("sce", [0.1, 1.0]), ("sce", [0.1, 1 + 1e-15]), ("smoothing", [0.1])])
def test_no_preset_comes_twice(name, theta):
    found = presets(3, start=Criterion.of(name, theta))
    assert len({criterion.formula for criterion in found}) == len(found) == 10
    assert Criterion.of("taylorglo", robust(3).theta.tolist()) in found


def test_presets_of_unbalanced_classes():
    found = presets(3, UNBALANCED, places=2)
    names = [criterion.losses[0].family for criterion in found[1:]]
    assert names == ["smoothing", *["sce", "taylorglo"] * 3, "logit_adjustment", "class_weights"]
    assert all(len(criterion.losses) == 2 for criterion in found[1:])
    assert found[-1].losses[0].build().priors.tolist() == pytest.approx(UNBALANCED)


def started(strategy, space=None, population=10):
    space = (ShapeSpace() if space is None else space).for_task(10)
    strategy.start(space, population, seed=3)
    return strategy


def test_presets_are_one_generation_around_the_centre_of_the_space():
    mine = Prior("mine", (0.4, 0.2, 1.2), (0.1, 0.1, 0.1), step=0.5)
    criteria = started(Presets(), ShapeSpace(mine)).ask()
    own = [criterion for criterion in criteria if criterion.losses and criterion.losses[0].family == "taylorglo"]
    assert [criterion.step for criterion in own] == pytest.approx([0.5, 0.15, 1.5, 0.05])
    _, t = to_shape(to_minimal(torch.tensor(own[0].losses[0].theta)), 10)
    assert t.tolist() == pytest.approx(mine.t, rel=1e-4)


@pytest.mark.parametrize("population", [4, 10, 13])
def test_warm_cmaes_begins_with_presets_at_the_best_rate(population):
    strategy = started(WarmCMAES(), population=population)
    first = strategy.ask()
    assert first[:10] == presets(10)[:population]
    assert len(first) == population
    centre = strategy.space.decode(strategy.space.centre).losses
    costs = [0.1 if c.losses == centre and c.step == 0.3 else 0.5 for c in first]
    strategy.tell(costs)
    assert math.exp(strategy.space.centre[-1]) == pytest.approx(0.3 if population > 4 else 1.0)
    # What comes next does not depend on whether the search was interrupted
    other = started(WarmCMAES(), population=population)
    other.load_state_dict(json.loads(json.dumps(strategy.state_dict())))
    for _ in range(2):
        assert strategy.ask() == (again := other.ask())
        assert {criterion.losses[0].family for criterion in again} == {"taylorglo"}
        for each in (strategy, other):
            each.tell(list(range(population)))


def test_what_a_search_does_by_default():
    small = SearchSettings()
    assert isinstance(small.strategy, Presets)
    assert (small.generations, small.candidates, small.finals) == (1, 10, Finals(3, 1, 10, look=4))
    assert small.trainings == 10 + 3 + 20
    full = SearchSettings(generations=8)
    assert isinstance(full.strategy, WarmCMAES)
    assert (full.space.centre[:3], full.candidates, full.finals) == (prior().t, 80, Finals())
    assert SearchSettings(finals=3).finals == Finals(3, 1, 3)
    published = SearchSettings(prior=None)
    assert isinstance(published.space, TaylorSpace)
    assert (published.strategy.to_dict()["name"][-5:], published.generations) == ("CMAES", 10)
    assert SearchSettings(space="gce").strategy.to_dict() == published.strategy.to_dict()


def result_of(criterion, tmp_path):
    """A result whose best loss this is, as a file."""
    found = minimize(lambda loss: float(torch.rand(())), 10, space="taylorglo", generations=1, population=2, finals=2,
                     progress=False)  # fmt: skip
    values = found.to_dict()
    values["best"]["criterion"] = criterion.to_dict()
    path = tmp_path / "search.json"
    SearchResult.from_dict(values).save(path)
    return path


@pytest.mark.filterwarnings("ignore:`fn` did not call")
def test_an_earlier_result_as_a_prior(tmp_path):
    theta = tuple(robust(10).theta.tolist())
    path = result_of(Criterion((LossSpec("taylorglo", theta),), 0.3), tmp_path)
    space = prior_space(path)
    assert space.centre == pytest.approx((*prior().t, math.log(0.3)))
    assert space.spread == pytest.approx((*(s / 2 for s in prior().spread), 1.0))
    # Another number of classes: the same shape
    criterion = space.for_task(3).decode(space.centre)
    assert to_shape(to_minimal(torch.tensor(criterion.losses[0].theta)), 3)[1].tolist() == pytest.approx(prior().t)
    saved = SearchResult.load(path).to_prior()
    (tmp_path / "mine.json").write_text(json.dumps(saved.to_dict()))
    assert prior_space(tmp_path / "mine.json").centre == space.centre

    other = prior_space(result_of(Criterion.of("gce", [0.4], 0.3), tmp_path))
    assert isinstance(other, FamilySpace)
    assert other.family is GCELoss
    assert other.decode(other.centre).losses[0].theta == pytest.approx((0.4,))
    rate = prior_space(result_of(Criterion.original(0.3), tmp_path))
    assert isinstance(rate, StepSpace)
    assert rate.decode(rate.centre).step == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("nothing", ValueError, "'shared'"),
        (3, TypeError, "name or the file"),
        ("missing.json", FileNotFoundError, "missing.json"),
    ],
)
def test_a_wrong_prior_is_an_error(given, error, words):
    with pytest.raises(error, match=words):
        SearchSettings(prior=given)


def test_a_damaged_prior_is_an_error(tmp_path):
    path = tmp_path / "mine.json"
    for content in ("{", "[]", '{"centre": {"t": [1, 2]}, "spread": [1, 1], "name": "x"}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"mine.json holds n"):
            SearchSettings(prior=path)
