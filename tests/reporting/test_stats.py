import math

import pytest

from tglo_lightning.reporting import summarize, welch


def test_summary_by_hand():
    assert summarize([1.0, 2.0, 4.0]) == {
        "values": [1.0, 2.0, 4.0],
        "mean": pytest.approx(7 / 3),
        "std": pytest.approx(math.sqrt(7 / 3)),
    }


def test_summary_of_one_value_has_no_deviation():
    assert summarize([0.5]) == {"values": [0.5], "mean": 0.5, "std": None}


def test_summary_does_not_hide_a_diverged_training():
    assert summarize([0.5, math.nan, math.inf]) == {"values": [0.5, None, None], "mean": None, "std": None}


def test_welch_by_hand():
    # variances 1 and 4, n = 3 each: t = 3 / sqrt(5/3); nu = (5/3)^2 / ((1/3)^2/2 + (4/3)^2/2) = 50/17
    a, b = [4.0, 5.0, 6.0], [0.0, 2.0, 4.0]
    from scipy.stats import t

    tail = float(t.sf(3 / math.sqrt(5 / 3), 50 / 17))
    assert welch(a, b, "greater") == pytest.approx(tail)
    assert welch(a, b, "less") == pytest.approx(1 - tail)
    assert welch(a, b) == pytest.approx(2 * tail)


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0]), ([1.0, math.nan], [1.0, 2.0]), ([], [])],
)
def test_welch_says_nothing_where_it_cannot(a, b):
    assert welch(a, b) is None


def test_one_constant_sample_is_enough_variance():
    assert welch([1.0, 1.0, 1.0], [2.0, 2.1, 2.2], "less") < 0.01
