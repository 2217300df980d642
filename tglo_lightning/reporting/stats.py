"""Statistics over repeated trainings."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy.stats import ttest_ind, ttest_rel

from tglo_lightning.reporting.numbers import LESS_IS_BETTER, number, p_value, signed

__all__ = ["LESS_IS_BETTER", "Verdict", "hedges_g", "holm", "summarize", "verdict", "welch"]

Alternative = Literal["two-sided", "less", "greater"]

SIGNIFICANT = 0.05


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
    return _test(a, b, alternative)[0]


def _test(
    a: Sequence[float], b: Sequence[float], alternative: Alternative, *, paired: bool = False
) -> tuple[float | None, tuple[float, float] | None]:
    """P-value, and the 95 % confidence interval of the difference of the means."""
    if not _testable(a, b):
        return None, None
    spread = [x - y for x, y in zip(a, b, strict=True)] if paired else a
    if len(set(spread)) == 1 and (paired or len(set(b)) == 1):
        return None, None
    with warnings.catch_warnings():
        # scipy suspects a loss of precision when one sample is constant; accuracies can be
        warnings.simplefilter("ignore", RuntimeWarning)
        test = ttest_rel if paired else ttest_ind
        options = {} if paired else {"equal_var": False}
        p = float(test(a, b, alternative=alternative, **options).pvalue)
        interval = test(a, b, **options).confidence_interval(0.95)
    return (p, (float(interval.low), float(interval.high))) if math.isfinite(p) else (None, None)


def _testable(a: Sequence[float], b: Sequence[float]) -> bool:
    return min(len(a), len(b)) > 1 and all(map(math.isfinite, [*a, *b]))


@dataclass(frozen=True)
class Verdict:
    """How a sample compares with another by one metric; made by :func:`verdict`.

    Attributes:
        difference: mean of the first minus mean of the second.
        better: whether the first has the better mean.
        p: one-sided p-value, the alternative being that the first is better; None if no test is possible.
        interval: 95 % confidence interval of the difference, or None.
        effect: Hedges' g, positive if the first has the higher mean, or None.
        n: values of the first sample.
        constant: whether each sample holds one value several times: then seeds did not matter, and n counts as 1.
        test: name of the test.
    """

    difference: float
    better: bool
    p: float | None
    interval: tuple[float, float] | None
    effect: float | None
    n: int
    constant: bool
    test: str

    @property
    def p_two_sided(self) -> float | None:
        """P-value of the two-sided test."""
        return None if self.p is None else 2 * min(self.p, 1 - self.p)

    @property
    def outcome(self) -> str:
        """``"better"`` or ``"worse"`` where p is below 0.05, else ``"undecided"``."""
        if self.p is None or SIGNIFICANT <= self.p <= 1 - SIGNIFICANT:
            return "undecided"
        return "better" if self.p < SIGNIFICANT else "worse"

    @property
    def words(self) -> str:
        """How sure it is, in words, with the p-value."""
        if self.constant:
            return "the same for every seed, so it counts as a single training of each loss"
        if self.p is None:
            return "more seeds are needed to tell whether this is chance"
        if self.outcome == "worse":
            return "worse, and unlikely to be chance (p\u00a0<\u00a00.05)"
        for level, words in ((0.001, "very unlikely to be chance"), (0.01, "strong evidence"), (0.05, "some evidence")):
            if self.p < level:
                return f"{words} (p\u00a0<\u00a0{level})"
        return f"may well be chance (p\u00a0=\u00a0{p_value(self.p)})"

    @property
    def details(self) -> str:
        """Interval of the difference, p and effect size, in one line."""
        told = []
        if self.interval is not None:
            low, high = map(signed, self.interval)
            told.append(f"95\u00a0% confidence interval of the difference {low} to {high}")
        told.append(
            "one value, or values without spread, allow no test"
            if self.p is None
            else f"p\u00a0=\u00a0{p_value(self.p)}"
        )
        if self.effect is not None:
            told.append(f"effect size {number(abs(self.effect), 2)}\u00a0standard deviations")
        return "; ".join(told)


def verdict(
    ours: Sequence[float], theirs: Sequence[float], *, less: bool = False, paired: bool = False
) -> Verdict | None:
    """Compare two samples of a metric: difference, one-sided test and effect size, and what they mean in words.

    Args:
        ours: values of the loss in question.
        theirs: values of the loss that it is compared with.
        less: whether lower values are better.
        paired: whether values at the same place share a seed: then the paired t-test, else Welch's.

    Returns:
        The verdict; None if a value is missing or not finite.
    """
    if not ours or not theirs or not all(map(math.isfinite, [*ours, *theirs])):
        return None
    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    p, interval = _test(ours, theirs, "less" if less else "greater", paired=paired)
    constant = all(len(values) > 1 and len(set(values)) == 1 for values in (ours, theirs))
    better = difference < 0 if less else difference > 0
    test = "paired t-test" if paired else "Welch’s t-test"
    return Verdict(difference, better, p, interval, hedges_g(ours, theirs), len(ours), constant, test)


def hedges_g(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Hedges' g, the difference of two means in standard deviations, freed of its small-sample bias.

    `(mean(a) - mean(b)) / s * (1 - 3 / (4 (n_a + n_b) - 9))` with the pooled standard deviation `s` (L. Hedges,
    *Distribution Theory for Glass's Estimator of Effect Size*, 1981, with the usual approximation of the factor).

    Returns:
        g, positive where the mean of `a` is higher; None where it says nothing: a sample of fewer than two values, a
        value that is not finite, or no variance in either sample.
    """
    if not _testable(a, b):
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
