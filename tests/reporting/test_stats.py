import math

import pytest

from tglo_lightning.reporting.stats import hedges_g, holm, summarize, verdict, welch


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


def test_hedges_g_by_hand():
    # means 5 and 2, variances 1 and 4, pooled sqrt(2.5), factor 1 - 3/15
    assert hedges_g([4.0, 5.0, 6.0], [0.0, 2.0, 4.0]) == pytest.approx(0.8 * 3 / math.sqrt(2.5))
    for a, b in (([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0]), ([1.0, math.nan], [1.0, 2.0])):
        assert hedges_g(a, b) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("shift", "outcome", "words"),
    [
        (0.3, "better", "very unlikely to be chance (p\u00a0<\u00a00.001)"),
        (0.0001, "undecided", "may well be chance (p\u00a0=\u00a00.5)"),
        (-0.3, "worse", "worse, and unlikely to be chance (p\u00a0<\u00a00.05)"),
    ],
)
def test_the_verdict_in_words(shift, outcome, words):
    theirs = [0.60, 0.62, 0.65, 0.61]
    for less in (False, True):
        told = verdict([value + (-shift if less else shift) for value in theirs], theirs, less=less)
        assert (told.outcome, told.words) == (outcome, words)
        assert told.better == (shift > 0)
        assert told.interval[0] < told.difference < told.interval[1]
        assert "95\u00a0% confidence interval" in told.details


def test_a_verdict_needs_spread_and_finite_values():
    assert verdict([0.5, math.nan], [0.5, 0.6]) is None
    assert verdict([], [0.5]) is None
    one = verdict([0.5], [0.4])
    assert (one.p, one.outcome, one.words) == (
        None,
        "undecided",
        "more seeds are needed to tell whether this is chance",
    )
    same = verdict([0.5, 0.5], [0.4, 0.4])
    assert same.constant
    assert "counts as a single training" in same.words


def test_pairs_see_more_than_means():
    from scipy.stats import ttest_rel

    theirs = [0.1, 0.5, 0.9, 0.3]
    ours = [0.14, 0.52, 0.95, 0.33]
    told = verdict(ours, theirs, paired=True)
    assert told.p == pytest.approx(ttest_rel(ours, theirs, alternative="greater").pvalue)
    assert told.outcome == "better"
    assert verdict(ours, theirs).outcome == "undecided"
    assert verdict([1.0, 2.0], [0.0, 1.0], paired=True).p is None
