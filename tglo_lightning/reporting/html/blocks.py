"""What a section of the report is made of; a page and a terminal render it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from tglo_lightning.reporting.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Formula(str):
    """A formula in plain text; what follows a comma is words."""


@dataclass
class Section:
    """A section of the report: its anchor, its title, a paragraph to begin with, and its blocks."""

    id: str
    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> Section:
        """Append blocks; returns the section."""
        self.blocks += blocks
        return self


@dataclass
class Text:
    """A paragraph."""

    words: str


@dataclass
class Code:
    """Something to type or to copy, and what it is."""

    label: str
    source: str = ""


class Missing(Code):
    """A part that this run does not have, and how to get it."""


@dataclass
class Loss:
    """``f(y, h)``, and of what it is."""

    place: str
    formula: Formula


@dataclass
class Points:
    """A heading and short lines; a line that starts with two spaces belongs to the one before."""

    head: str
    lines: Sequence[str]


@dataclass
class Pictures:
    """Pictures beside each other where the page is wide enough, each with its description in words below."""

    figures: Sequence[Figure]


@dataclass
class Details:
    """Blocks behind a line to click."""

    summary: str
    blocks: Sequence[Table | Code]


Block = Text | Missing | Code | Loss | Points | Table | Pictures | Details
"""A part of a section, rendered by the macro of its name in ``templates/blocks.html``."""


def typeset(plain: Any) -> Markup:
    """A formula, or words that hold one, with the signs, indices and powers that a page has.

    >>> typeset("-1.5 h^2 <= 1e-05 y")
    Markup('−1.5 <i>h</i><sup>2</sup> ≤ 1×10<sup>−5</sup> <i>y</i>')
    """
    if isinstance(plain, Formula):  # products do not break at the end of a line
        terms, comma, words = plain.partition(", ")
        plain = re.sub(r"(?<![+-]) (?![+-])", "\u00a0", terms) + comma + words
    html = str(escape(plain))
    for pattern, sign in (
        (r"(?<=\d)e\+?(-?)0*(\d+)", r"×10<sup>\1\2</sup>"),
        (r"\^(\d+(?:\.\d+)?)", r"<sup>\1</sup>"),
        (r"\bh_T\b", "<i>h</i><sub>T</sub>"),
        (r"\b([yh])\b", r"<i>\1</i>"),
        (r"\beps_mid\b", "ε<sub>mid</sub>"),
        (r"\beps\b", "ε"),
        ("learning(.)rate x ", r"learning\1rate × "),
        ("&lt;=", "≤"),
        ("&gt;=", "≥"),
        (r"(?<![\w)])-(?=[\d(<hS])|(?<= )-(?= )", "−"),
    ):
        html = re.sub(pattern, sign, html)
    return Markup(html)
