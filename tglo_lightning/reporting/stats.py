"""Statistics over repeated trainings."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import ttest_rel

from tglo_lightning.reporting.numbers import p_value, signed

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


@dataclass(frozen=True)
class Verdict:
    """How a loss compares with another from the same seeds, by one metric; made by :func:`verdict`.

    Attributes:
        difference, interval: mean difference, first minus second, and its 95 % confidence interval or None.
        better: whether the first has the better mean.
        p: one-sided p-value of the paired t-test, the alternative being that the first is better; None without a test.
        n: number of seeds.
        constant: whether each loss has one value several times: then seeds did not matter, and n counts as 1.
    """

    difference: float
    better: bool
    p: float | None
    interval: tuple[float, float] | None
    n: int
    constant: bool

    @property
    def p_two_sided(self) -> float | None:
        """P-value of the two-sided test."""
        return None if self.p is None else 2 * min(self.p, 1 - self.p)

    @property
    def outcome(self) -> str:
        """``"better"`` or ``"worse"`` where p is below 0.05, else ``"undecided"``."""
        if self.p is not None and self.p < SIGNIFICANT:
            return "better"
        return "worse" if self.p is not None and self.p > 1 - SIGNIFICANT and not self.better else "undecided"

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
        """Interval of the difference and p, in one line."""
        if self.p is None or self.interval is None:
            return "one value, or differences without spread, allow no test"
        low, high = map(signed, self.interval)
        return f"95\u00a0% confidence interval of the difference {low} to {high}; p\u00a0=\u00a0{p_value(self.p)}"


def verdict(ours: Sequence[float], theirs: Sequence[float], *, less: bool = False) -> Verdict | None:
    """Compare two losses by a metric with the paired t-test; None if there are no values, or one is not finite.

    Args:
        ours: values of one loss.
        theirs: values of the other; those at the same place come from the same seed.
        less: whether lower values are better.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not differences or not all(map(math.isfinite, differences)):
        return None
    difference, p, interval = statistics.fmean(differences), None, None
    if len(set(differences)) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, of differences that are nearly the same
            test = ttest_rel(ours, theirs)
        tail, ahead = float(test.pvalue) / 2, (difference < 0) == less
        p, (low, high) = tail if ahead else 1 - tail, test.confidence_interval(0.95)
        interval = float(low), float(high)
    constant = all(len(values) > 1 and len(set(values)) == 1 for values in (ours, theirs))
    better = difference < 0 if less else difference > 0
    return Verdict(difference, better, p, interval, len(differences), constant)


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
