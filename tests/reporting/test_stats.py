import math

import pytest

from tglo_lightning.reporting.stats import holm, summarize, verdict


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


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("shift", "outcome", "words"),
    [
        (0.3, "better", "very unlikely to be chance (p\u00a0<\u00a00.001)"),
        (0.0001, "undecided", "may well be chance (p\u00a0=\u00a00.49)"),
        (-0.3, "worse", "worse, and unlikely to be chance (p\u00a0<\u00a00.05)"),
    ],
)
def test_the_verdict_in_words(shift, outcome, words):
    theirs = [0.60, 0.62, 0.65, 0.61]
    for less in (False, True):
        noise = (0.01, -0.01, 0.005, -0.005)
        ours = [v + (-shift if less else shift) + n for v, n in zip(theirs, noise, strict=True)]
        told = verdict(ours, theirs, less=less)
        assert (told.outcome, told.words) == (outcome, words)
        assert told.better == (shift > 0)
        assert told.interval[0] < told.difference < told.interval[1]
        assert "95\u00a0% confidence interval" in told.details


def test_a_verdict_needs_spread_and_finite_values():
    assert verdict([0.5, math.nan], [0.5, 0.6]) is None
    assert verdict([], []) is None
    one = verdict([0.5], [0.4])
    assert (one.p, one.outcome, one.words) == (
        None,
        "undecided",
        "more seeds are needed to tell whether this is chance",
    )
    same = verdict([0.5, 0.5], [0.4, 0.4])
    assert same.constant
    assert "counts as a single training" in same.words
    assert verdict([1.0, 2.0], [0.0, 1.0]).p is None


@pytest.mark.parametrize("less", [False, True])
def test_pairs_see_more_than_means(less):
    from scipy.stats import ttest_ind, ttest_rel

    theirs, ours = [0.1, 0.5, 0.9, 0.3], [0.14, 0.52, 0.95, 0.33]
    told, side = verdict(ours, theirs, less=less), "less" if less else "greater"
    assert told.p == pytest.approx(ttest_rel(ours, theirs, alternative=side).pvalue)
    assert told.p_two_sided == pytest.approx(ttest_rel(ours, theirs).pvalue)
    assert told.outcome == ("worse" if less else "better")
    assert ttest_ind(ours, theirs).pvalue > 0.5
