"""What a section of the report is made of; how each looks is the template's business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from tglo_lightning.reporting.html.figures import Panel

__all__ = ["Code", "Details", "Formula", "Missing", "Plots", "Points", "Section", "Table", "Text"]


@dataclass
class Text:
    """A paragraph; ``Markup`` where it holds more than text."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass
class Missing:
    """A part that this run does not have, and how to get it."""

    kind: ClassVar[str] = "missing"
    text: str
    command: str = ""


@dataclass
class Code:
    """Something to type or to copy."""

    kind: ClassVar[str] = "code"
    label: str
    text: str


@dataclass
class Formula:
    """``f(y, h)`` in plain text, and of what it is."""

    kind: ClassVar[str] = "formula"
    head: str
    formula: str


@dataclass
class Points:
    """A heading and short lines; a line that starts with two spaces belongs to the one before."""

    kind: ClassVar[str] = "points"
    head: str
    lines: Sequence[str]


@dataclass
class Table:
    """A table: the first cell of a row is its heading; ``Markup`` in a cell is a formula."""

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    foot: str = ""


@dataclass
class Plots:
    """Plots beside each other, where the page is wide enough."""

    kind: ClassVar[str] = "plots"
    panels: Sequence[Panel]
    caption: str = ""


@dataclass
class Details:
    """Blocks behind a line to click."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Block]


Block = Text | Missing | Code | Formula | Points | Table | Plots | Details


@dataclass
class Section:
    """A section of the report."""

    id: str
    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)
