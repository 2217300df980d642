"""Formulas as MathML, which every browser draws without help."""

from __future__ import annotations

import re
from html import escape

from markupsafe import Markup

__all__ = ["mathml"]

# What the losses of this package write: sums of products of powers
NUMBER = r"(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|inf|nan)"
PLAIN = rf"(?:{NUMBER}|[a-z])"
POWER = rf"(?:(?:log)?\({PLAIN}(?: [-+] {PLAIN})?\)|{PLAIN})(?:\^\d+)?"
PRODUCT = rf"{POWER}(?:(?: /)? {POWER})*"
SUM = re.compile(rf"-?{PRODUCT}(?: [-+] {PRODUCT})*")
TERM = re.compile(rf"(?:^-|[-+] |){PRODUCT}")
LATEX = (
    (r"^([-+]) ", r"\1\\:"),
    (r" ([-+]) ", r"\1"),
    (r"e\+?(-?)0*(\d+)", r"\\times10^{\1\2}"),
    (r"\^(\d+)", r"^{\1}"),
    (r"^([-+]\\:|-?)(.+) / (.+)$", r"\1\\frac{\2}{\3}"),
    (r"\blog\b", r"\\log"),
    (r"\binf\b", r"\\infty"),
    (r"\bnan\b", r"\\text{nan}"),
    (" ", r"\\,"),
)


def mathml(formula: str) -> Markup:
    """A formula such as ``"-1.5 h^2 + 2 y (h - 0.5)"``, as the losses of this package write it, in MathML.

    Each term of the sum is a ``<math>`` of its own, so that a long formula breaks into lines. What follows a comma
    stays text, as in ``"0.2 y log(h), labels smoothed by 0.8"``. Anything else comes back
    as escaped text.

    Raises:
        ImportError: latex2mathml is not installed.
    """
    sum_, comma, rest = formula.partition(", ")
    if not SUM.fullmatch(sum_):
        return Markup(f"<code>{escape(formula)}</code>")
    return Markup(" ".join(map(_drawn, TERM.findall(sum_))) + escape(f"{comma}{rest}"))


def _drawn(term: str) -> str:
    from latex2mathml.converter import convert

    latex = term
    for pattern, replacement in LATEX:
        latex = re.sub(pattern, replacement, latex)
    # Letters by our style sheet: not every phone has a font with those of mathematics
    letters = re.sub("<mi>([a-z])</mi>", r'<mi mathvariant="normal" class="v">\1</mi>', convert(latex))
    return letters.replace("<math ", f'<math aria-label="{escape(term)}" ', 1)
