"""How long a candidate trains."""

import math

import numpy as np
import pytest

from tglo_lightning.search import Budget
from tglo_lightning.search.budget import as_budget


def test_a_number_means_epochs():
    assert as_budget(np.int64(3)) == Budget(epochs=3)
    assert as_budget(None) == Budget()
    assert as_budget(Budget(steps=5)) == Budget(steps=5)
    for wrong, error in ((0, ValueError), (True, TypeError), (2.0, TypeError), ("3", TypeError)):
        with pytest.raises(error, match="`budget`"):
            as_budget(wrong)


def test_length_and_unit():
    assert [(b.length, b.unit) for b in (Budget(epochs=3), Budget(steps=7))] == [(3, "epochs"), (7, "steps")]


def test_plain_values():
    budget = Budget(epochs=np.int64(5), timeout=np.float32(0.5), min_fitness_after=[np.int64(2), np.float64(0.25)])
    plain = {"epochs": 5, "steps": None, "timeout": 0.5, "score": None, "min_fitness_after": [2, 0.25]}
    assert budget.to_dict() == plain
    assert [type(v) for v in (budget.epochs, budget.timeout, *budget.min_fitness_after)] == [int, float, int, float]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 1, "steps": 1}, ValueError, "one of `epochs` and `steps`"),
        ({"epochs": 0}, ValueError, "`epochs` must be at least 1"),
        ({"steps": 1.0}, TypeError, "`steps` must be an int"),
        ({"epochs": 1, "timeout": 0}, ValueError, "`timeout` must be above 0"),
        ({"epochs": 1, "timeout": math.nan}, ValueError, "`timeout`"),
        ({"epochs": 3, "min_fitness_after": 2}, TypeError, "`min_fitness_after` must be a pair"),
        ({"epochs": 3, "min_fitness_after": "12"}, TypeError, "`min_fitness_after` must be a pair"),
        ({"epochs": 3, "min_fitness_after": (3, 0.5)}, ValueError, "from 1 to 2"),
        ({"epochs": 3, "min_fitness_after": (1, None)}, TypeError, r"`min_fitness_after\[1\]`"),
        ({"epochs": 3, "callbacks": "x"}, TypeError, "`callbacks` must be a list"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        Budget(**arguments)
