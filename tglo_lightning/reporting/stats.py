"""Statistics over repeated trainings."""

import math
import statistics
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from scipy.stats import ttest_ind

Alternative = Literal["two-sided", "less", "greater"]

# Metrics of which less is better; of any other, more is.
LESS_IS_BETTER = frozenset({"nll", "loss", "error", "ece", "brier"})


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """`{"values", "mean", "std"}` of one metric over repeats, ready for JSON.

    `std` is the sample standard deviation (n - 1), None for fewer than two values. A value that is not finite becomes
    None, and with it the mean and the deviation: a diverged training must not vanish in an average.
    """
    clean = [float(v) if math.isfinite(v) else None for v in values]
    finite = [v for v in clean if v is not None]
    complete = bool(finite) and len(finite) == len(clean)
    return {
        "values": clean,
        "mean": statistics.fmean(finite) if complete else None,
        "std": statistics.stdev(finite) if complete and len(finite) > 1 else None,
    }


def welch(a: Sequence[float], b: Sequence[float], alternative: Alternative = "two-sided") -> float | None:
    """P-value of Welch's t-test, which assumes neither equal variances nor equal sizes of the two samples.

    Args:
        a: first sample.
        b: second sample.
        alternative: "greater" asks whether the mean of `a` is above that of `b`, "less" whether it is below.

    Returns:
        The p-value in [0, 1]; None where the test says nothing: a sample of fewer than two values, a value that is not
        finite, or no variance in either sample.
    """
    if min(len(a), len(b)) < 2 or not all(map(math.isfinite, [*a, *b])):
        return None
    if len(set(a)) == 1 and len(set(b)) == 1:
        return None
    with warnings.catch_warnings():
        # scipy suspects a loss of precision when one sample is constant; accuracies can be
        warnings.simplefilter("ignore", RuntimeWarning)
        p = float(ttest_ind(a, b, equal_var=False, alternative=alternative).pvalue)
    return p if math.isfinite(p) else None


def welch_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of `mean(a) - mean(b)` that belongs to Welch's two-sided test; None where `welch` is."""
    if welch(a, b) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return float(interval.low), float(interval.high)


def hedges_g(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Hedges' g, the difference of two means in standard deviations, freed of its small-sample bias.

    `(mean(a) - mean(b)) / s * (1 - 3 / (4 (n_a + n_b) - 9))` with the pooled standard deviation `s` (L. Hedges,
    *Distribution Theory for Glass's Estimator of Effect Size*, 1981, with the usual approximation of the factor).

    Returns:
        g, positive where the mean of `a` is higher; None where it says nothing: a sample of fewer than two values, a
        value that is not finite, or no variance in either sample.
    """
    if min(len(a), len(b)) < 2 or not all(map(math.isfinite, [*a, *b])):
        return None
    freedom = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * statistics.variance(a) + (len(b) - 1) * statistics.variance(b)) / freedom
    if pooled == 0:
        return None
    factor = 1 - 3 / (4 * (freedom + 2) - 9)
    return factor * (statistics.fmean(a) - statistics.fmean(b)) / math.sqrt(pooled)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number, by S. Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, 1979.

    The k-th smallest of m is multiplied by `m - k + 1`, and none falls below a smaller one; so the chance that any true
    null hypothesis is rejected at a level stays below that level, however the tests depend on each other. None stays
    None and does not count.
    """
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    lowest = 0.0
    for rank, (p, index) in enumerate(ranked):
        lowest = max(lowest, min(1.0, (len(ranked) - rank) * p))
        corrected[index] = lowest
    return corrected
