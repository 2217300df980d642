"""The checks that all arguments go through: a wrong kind and a wrong size, by name; what passes is plain Python."""

import inspect
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from omegaconf import ListConfig

from tglo_lightning import AttractionMonitor, RobustnessMonitor, TaylorGLO, search
from tglo_lightning.arguments import choice, flag, integer, number, optional, sizes

BOUNDS = [
    ({}, "finite"),
    ({"least": 0}, "at least 0 and finite"),
    ({"above": 0}, "above 0 and finite"),
    ({"least": 0, "most": 1}, "in [0, 1]"),
    ({"above": 0, "most": 1}, "in (0, 1]"),
    ({"least": 0, "below": 1}, "in [0, 1)"),
    ({"above": 0, "below": 1}, "in (0, 1)"),
]


@pytest.mark.parametrize("value", [3, np.int64(3), True + 2])
def test_integers_become_plain(value):
    assert type(integer("n", value, 1, 3)) is int


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.float64(1), torch.tensor(1)])
def test_what_is_no_integer(value):
    with pytest.raises(TypeError, match=r"^`n` must be an int, got "):
        integer("n", value)


@pytest.mark.parametrize(("bounds", "wanted"), [((2,), "at least 2"), ((2, 5), "from 2 to 5")])
def test_integers_out_of_range(bounds, wanted):
    with pytest.raises(ValueError, match=f"^`n` must be {wanted}, got 1.$"):
        integer("n", 1, *bounds)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), Fraction(1, 2)])
def test_numbers_become_plain(value):
    assert type(number("x", value, above=0, most=1)) is float


@pytest.mark.parametrize("value", [False, "0.5", None, 1j, torch.tensor(0.5)])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^`x` must be a number, got "):
        number("x", value)


@pytest.mark.parametrize(("bounds", "wanted"), BOUNDS)
def test_numbers_out_of_range(bounds, wanted):
    low, high = bounds.get("least", -9), bounds.get("most", 9)
    for value in (-1.0, 0.0, 0.5, 1.0, 2.0, math.inf, -math.inf, math.nan, 10**400):
        if low <= value <= high and bounds.get("above", -9) < value < bounds.get("below", 9):
            assert number("x", value, **bounds) == value
        else:
            with pytest.raises(ValueError, match=re.escape(f"`x` must be {wanted}, got ")):
                number("x", value, **bounds)


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"], np.array("a")])
def test_choices(value):
    assert choice("word", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match=r"^`word` must be one of 'a', 'b' or None, got "):
        choice("word", value, ("a", "b"), " or None")


def test_flags():
    assert flag("on", False) is False
    with pytest.raises(TypeError, match=r"^`on` must be True or False, got 0\.$"):
        flag("on", 0)


def test_optional():
    assert optional(integer, "n", None, 1) is None
    assert optional(number, "x", 1, above=0) == 1.0
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        optional(integer, "n", 0, 1)


@pytest.mark.parametrize(
    ("value", "error"), [("12", TypeError), (3, TypeError), ([1, 0.5], TypeError), ([1, 0], ValueError)]
)
def test_sizes(value, error):
    assert sizes("shape", [1, np.int64(2)]) == (1, 2)
    with pytest.raises(error, match="`shape"):
        sizes("shape", value)


SCE = search.Criterion.of("sce", [0.1, 1.0])
SPACES = [search.FamilySpace("gce"), search.ShapeSpace()]
MONITOR = RobustnessMonitor()
# What each argument that takes a list is given, and what becomes of it
LISTS = {
    ("TaylorGLO", "loss"): (["criterion", "F.cross_entropy"], lambda x: TaylorGLO(x).loss),
    ("RobustnessMonitor", "losses"): (["own", "margin"], lambda x: list(RobustnessMonitor(losses=x).attacks)),
    ("RobustnessMonitor", "bounds"): ([0, 1], lambda x: RobustnessMonitor(bounds=x)._options["bounds"]),
    ("RobustnessMonitor", "normalize"): ([[0.1, 0.2], [1, 1]], lambda x: RobustnessMonitor(normalize=x)._options),
    ("Budget", "callbacks"): ([MONITOR], lambda x: search.Budget(5, callbacks=x)),
    ("Budget", "min_fitness_after"): ([2, 0.5], lambda x: search.Budget(5, min_fitness_after=x).to_dict()),
    ("Race", "members"): ([SCE], lambda x: search.Race(x).to_dict()),
    ("Portfolio", "spaces"): (["gce", "original"], lambda x: search.Portfolio(x).to_dict()),
    ("Portfolio", "rates"): ([1.0, 0.3], lambda x: search.Portfolio(rates=x).to_dict()),
    ("ProductSpace", "spaces"): (SPACES, lambda x: search.ProductSpace(x).to_dict()),
    ("Criterion", "losses"): (SCE.losses, lambda x: search.Criterion(x).to_dict()),
    ("LossSpec", "theta"): ([0.1, 1.0], lambda x: search.LossSpec("sce", x)),
}
RESULTS = ("Candidate", "Curves", "Evaluation", "Finalist", "Journal", "Objective", "SearchResult")


@pytest.mark.parametrize("argument", LISTS)
def test_lists_of_a_config(argument):
    """As Hydra hands them over: a ListConfig with the objects that it has built."""
    values, build = LISTS[argument]
    assert build(ListConfig(list(values), flags={"allow_objects": True})) == build(values)


def test_no_argument_that_takes_a_list_is_forgotten():
    public = [AttractionMonitor, RobustnessMonitor, TaylorGLO, *(getattr(search, name) for name in search.__all__)]
    found = {
        (each.__name__, name)
        for each in public
        if inspect.isclass(each) and not issubclass(each, Exception) and each.__name__ not in RESULTS
        for name, parameter in inspect.signature(each).parameters.items()
        if re.search(r"(Sequence|tuple|list|dict|Mapping)\[", str(parameter.annotation).partition("Callable")[0])
    }
    assert found == LISTS.keys()
