"""What a section of the report is made of, as HTML; every text that is not ``Markup`` is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from tglo_lightning.reporting import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Section:
    """A section of the report: its anchor, its title, a paragraph to begin with, and its blocks."""

    id: str
    title: str
    lead: str = ""
    blocks: list[Markup] = field(default_factory=list)

    def add(self, *blocks: Markup) -> Section:
        """Append blocks; returns the section."""
        self.blocks += blocks
        return self


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("\n").join(parts)


def text(words: str) -> Markup:
    """A paragraph."""
    return Markup("<p>{}</p>").format(words)


def _typed(source: str) -> Markup:
    kind = Markup(' class="lines"') if "\n" in source else ""
    return Markup('<pre tabindex="0"{}><code>{}</code></pre>').format(kind, source) if source else Markup()


def missing(words: str, command: str = "") -> Markup:
    """A part that this run does not have, and how to get it."""
    return Markup('<div class="missing"><p>{}</p>{}</div>').format(words, _typed(command))


def code(label: str, source: str) -> Markup:
    """Something to type or to copy."""
    return Markup('<figure class="code"><figcaption>{}</figcaption>{}</figure>').format(label, _typed(source))


def formula(head: str, function: str) -> Markup:
    """``f(y, h)`` as the losses of this package write it, and of what it is."""
    what = Markup("<i>f</i>(<i>y</i>, <i>h</i>)")
    return Markup('<p class="formula">{}{} = {}</p>').format(what, head, function_of(function))


def function_of(plain: str) -> Markup:
    """A formula whose products do not break at the end of a line; what follows a comma is words."""
    terms, comma, words = plain.partition(", ")
    return typeset(re.sub(r"(?<![+-]) (?![+-])", "\u00a0", terms) + comma + words)


def typeset(plain: str) -> Markup:
    """A formula in plain text, or words that hold one, with the signs, indices and powers that a page has.

    >>> typeset("-1.5 h^2 <= 1e-05 y")
    Markup('−1.5 <i>h</i><sup>2</sup> ≤ 1×10<sup>−5</sup> <i>y</i>')
    """
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


def points(head: str, lines: Sequence[str]) -> Markup:
    """A heading and short lines; a line that starts with two spaces belongs to the one before."""
    items = (
        Markup("<li{}>{}</li>").format(Markup(' class="sub"') if line.startswith("  ") else "", line.strip())
        for line in lines
    )
    return Markup('<div class="points"><h3>{}</h3><ul>{}</ul></div>').format(head, _joined(items))


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], foot: str = "") -> Markup:
    """A table: the first cell of a row is its heading; ``Markup`` in a cell is a formula, which may break."""
    columns = _joined(Markup('<th scope="col">{}</th>').format(cell) for cell in head)
    body = _joined(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            row[0],
            Markup().join(
                Markup("<td{}>{}</td>").format(Markup(' class="formulas"') if isinstance(cell, Markup) else "", cell)
                for cell in row[1:]
            ),
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{0}"><table><caption><span>{0}</span></caption>'
        "<thead><tr>{1}</tr></thead><tbody>{2}</tbody></table></div>{3}"
    ).format(caption, columns, body, Markup('<p class="foot">{}</p>').format(foot) if foot else "")


def drawn(figures: Iterable[Figure]) -> Markup:
    """Pictures beside each other where the page is wide enough, each with its description in words below."""
    shown = (
        Markup('<figure class="picture">{}<figcaption>{}</figcaption></figure>').format(
            Markup(pictures.svg(figure)), figure.get_label()
        )
        for figure in figures
    )
    return Markup('<div class="pictures">{}</div>').format(_joined(shown))


def details(summary: str, *blocks: Markup) -> Markup:
    """Blocks behind a line to click."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, _joined(blocks))
