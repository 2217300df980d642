"""From coordinates to criteria, and which of them are feasible."""

import math

import numpy as np
import pytest
import torch
from helpers.searches import theta
from torch import nn

from tglo_lightning.losses import FAMILIES, TaylorGLOLoss
from tglo_lightning.search import Criterion, FamilySpace, ProductSpace, RandomSearch, Space, TaylorSpace
from tglo_lightning.search.space import as_space
from tglo_lightning.theory import to_minimal, trainability

SEARCHED = sorted(name for name, family in FAMILIES.items() if family.axes)


def drawn(space, num_classes=10, population=30):
    """Feasible draws, and how many were rejected."""
    strategy = RandomSearch()
    strategy.start(space.for_task(num_classes), population, seed=1)
    return strategy.ask(), strategy.rejected


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("step", [False, True])
def test_minimal_coordinates_are_those_of_the_theory(order, step):
    space = TaylorSpace(order, constraint=None, step=step)
    x = np.random.default_rng(0).standard_normal(len(space.axes)).tolist()
    criterion = space.decode(x)
    assert to_minimal(torch.tensor(theta(criterion))).tolist() == pytest.approx(x[: 2 * (order - 1)], rel=1e-6)
    assert criterion.step == (pytest.approx(math.exp(x[-1])) if step else 1)
    assert space.axes[-1] == ("log_step" if step else f"c_{2 * order - 3}")


def test_full_coordinates_are_theta():
    x = [float(i) for i in range(8)]
    assert theta(TaylorSpace(coordinates="full").decode(x)) == x


@pytest.mark.parametrize("name", ["trainable", "stable", "published"])
@pytest.mark.parametrize("coordinates", ["minimal", "full"])
def test_a_constraint_holds_of_every_draw(name, coordinates):
    criteria, rejected = drawn(TaylorSpace(coordinates=coordinates, constraint=name), num_classes=5)
    assert all(getattr(trainability(theta(criterion), 5), name) for criterion in criteria)
    assert rejected > 0


def test_a_constraint_of_ones_own_sees_plain_floats():
    refused = []

    def positive(values):
        assert all(type(value) is float for value in values)
        if values[2] <= 0:
            refused.append(values)
        return values[2] > 0

    criteria, rejected = drawn(TaylorSpace(coordinates="full", constraint=positive))
    assert all(theta(criterion)[2] > 0 for criterion in criteria)
    assert rejected == len(refused) > 0
    assert drawn(TaylorSpace(constraint=None))[1] == 0
    with pytest.raises(ValueError, match=r"`constraint` rejected 10,\d* draws in a row"):
        drawn(TaylorSpace(constraint=lambda values: False))


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("far", [-1e9, 0.0, 1e9])
def test_a_family_stays_within_its_bounds(name, far):
    space = FamilySpace(name)
    x = [value + far for value in space.centre]
    assert 0 < space.decode(x).step < math.inf
    space.decode(x).build()
    if far == 0:
        assert theta(space.decode(x)) == pytest.approx([axis.default for axis in FAMILIES[name].axes])


def test_a_family_without_parameters_is_searched_for_its_step():
    criterion = FamilySpace("cross_entropy").decode([math.log(2)])
    assert (criterion.losses, criterion.step) == (Criterion.of("cross_entropy").losses, pytest.approx(2))
    with pytest.raises(ValueError, match="has no parameters; search over its step"):
        FamilySpace("cross_entropy", step=False)


class Rates(Space):
    """The module's own loss at other rates."""

    axes, centre, spread = ("log_step",), (0.0,), (1.0,)

    def decode(self, x):
        return Criterion.original(math.exp(x[0]))

    def feasible(self, criterion):
        return criterion.step < 2


def test_a_product_has_one_step_and_asks_each_space_about_its_part():
    space = ProductSpace([FamilySpace("smoothing"), Rates(), TaylorSpace(constraint="stable")])
    assert space.axes == ("alpha[0]", "c_0[2]", "c_1[2]", "c_2[2]", "c_3[2]", "log_step")
    criterion = space.decode([0.0, 0, 0, 0, 0, math.log(3)])
    assert [loss.family for loss in criterion.losses] == ["smoothing", "taylorglo"]
    assert criterion.step == pytest.approx(3)
    assert len(as_space("shape", places=3).axes) == 3 * 3 + 1
    assert "log_step" not in ProductSpace([TaylorSpace()] * 2).axes
    criteria, rejected = drawn(space)
    assert rejected > 0
    assert all(c.step < 2 and trainability(list(c.losses[1].theta), 10).stable for c in criteria)


def test_spaces_by_their_names():
    assert isinstance(as_space("taylorglo"), TaylorSpace)
    assert isinstance(as_space(TaylorGLOLoss), TaylorSpace)
    assert as_space("smoothing").family is as_space(FAMILIES["smoothing"]).family
    assert isinstance(as_space(Rates(), places=2), Rates)
    assert len(as_space("smoothing", places=2).decode([0.0] * 3).losses) == 2
    for space, places in ((ProductSpace([TaylorSpace()] * 2), 3), (ProductSpace([TaylorSpace()] * 2), 1)):
        with pytest.raises(ValueError, match=rf"`space` must be one of {places} loss(es)?, got one of 2"):
            as_space(space, places)


def test_what_is_no_space():
    for wrong in (None, 3, TaylorSpace, ["smoothing"]):
        with pytest.raises(TypeError, match="`space` must be the name or class of a family"):
            as_space(wrong)
    with pytest.raises(ValueError, match="`space` must be one of 'asymmetric', 'baikal'"):
        as_space("unknown")
    with pytest.raises(ValueError, match="`family` must be one of 'asymmetric', 'baikal'"):
        FamilySpace("unknown")
    with pytest.raises(TypeError, match="`family` must be"):
        FamilySpace(nn.Linear)
    with pytest.raises(ValueError, match="that is TaylorSpace"):
        FamilySpace("taylorglo")


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("order", 1, ValueError),
        ("order", None, TypeError),
        ("coordinates", "tiny", ValueError),
        ("constraint", "exact", ValueError),
        ("constraint", 3, ValueError),
        ("step", 1, TypeError),
        ("spread", 0, ValueError),
        ("spread", math.nan, ValueError),
        ("spread", "1", TypeError),
    ],
)
def test_wrong_arguments_are_named(argument, value, error):
    with pytest.raises(error, match=f"`{argument}`"):
        TaylorSpace(**{argument: value})


def test_no_two_spaces_are_told_alike():
    class Slower(Rates):
        pass

    told = [
        space.to_dict()
        for space in (
            TaylorSpace(), TaylorSpace(4), TaylorSpace(step=True), TaylorSpace(spread=3.0),
            TaylorSpace(constraint=None), TaylorSpace(constraint=math.isnan), FamilySpace("smoothing"),
            FamilySpace("smoothing", step=False),
            ProductSpace([TaylorSpace()] * 2), Rates(), Slower(),
        )
    ]  # fmt: skip
    assert all(a != b for i, a in enumerate(told) for b in told[:i])
