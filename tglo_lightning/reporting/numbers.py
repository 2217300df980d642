"""Numbers as text, the same in tables, pictures and reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

# Test metrics of which less is better; of any other, more is
LESS_IS_BETTER = frozenset({"nll", "loss", "error", "ece", "brier"})
# Losses by how they were found, in the order of tables
LOSSES = {
    "original": "original",
    "tuned_original": "original, tuned rate",
    "known": "best known loss",
    "metalearned": "metalearned",
}
NORMS = {"linf": "L∞", "l2": "L₂"}


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits and a true minus sign.

    >>> number(-0.000012345), number(0.5), number(None)
    ('−1.23\\xa0×\\xa010⁻⁵', '0.5', 'n/a')
    """
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    mantissa, exponent, power = f"{value:.{digits}g}".partition("e")
    if exponent:
        power = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        mantissa += f"\u00a0×\u00a010{power}"
    return mantissa.replace("-", "−")


def p_value(p: float | None) -> str:
    """A p-value, ``"n/a"`` for None."""
    return number(p, 2)


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.3g}\u00a0%"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference, with its sign; ``"n/a"`` for None."""
    return "n/a" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def fixed(value: float | None) -> str:
    """A metric with four decimals; ``"not finite"`` for None or NaN."""
    return f"{value:.4f}" if value is not None and math.isfinite(value) else "not finite"


def mean_sd(values: Sequence[float | None]) -> str:
    """Mean ± sample standard deviation over repeats; the value alone if there is one.

    >>> mean_sd([1.0, 2.0]), mean_sd([1.0]), mean_sd([1.0, None])
    ('1.5000 ± 0.7071', '1.0000', 'not finite')
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite or len(finite) < len(values):
        return "not finite" if values else "none yet"
    return fixed(fmean(finite)) + (f" ± {stdev(finite):.4f}" if len(finite) > 1 else "")


def duration(seconds: float) -> str:
    """Seconds as seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def direction(metric: str) -> str:
    """``"lower"`` or ``"higher"``: which values of a test metric are better."""
    return "lower" if metric in LESS_IS_BETTER else "higher"
