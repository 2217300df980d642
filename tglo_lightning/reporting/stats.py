"""Statistics over repeated trainings."""

import math
import statistics
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from scipy.stats import ttest_ind

Alternative = Literal["two-sided", "less", "greater"]


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
