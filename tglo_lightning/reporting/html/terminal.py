"""The report as text, for a terminal."""

from __future__ import annotations

from textwrap import indent

from rich.console import Console, RenderableType
from rich.text import Text as RichText

from tglo_lightning.reporting.html.blocks import Block, Code, Details, Loss, Missing, Pictures, Points, Section, Table
from tglo_lightning.reporting.html.headline import Headline

TONES = {"good": "bold green", "open": "bold yellow", "plain": "bold"}


def print_blocks(console: Console, head: Headline, sections: list[Section], problems: list[str]) -> None:
    """Print a report: pictures as their descriptions; what the page folds is named and left out."""
    lines = [(head.title, TONES[head.tone]), (head.facts, "dim")]
    lines += [(f"{label}: {value}", "") for label, value, _ in head.bars]
    lines += [(head.measure, "dim"), (head.sure, "bold"), *((line, "") for line in head.sentences)]
    for words, style in (*lines, *((problem, "yellow") for problem in problems)):
        if words:
            console.print(words, style=style, markup=False)
    for section in sections:
        console.print(f"\n{section.title}", style="bold underline", markup=False)
        if section.lead:
            console.print(section.lead, style="dim", markup=False)
        for block in section.blocks:
            if isinstance(block, Code):
                console.print(block.label, style="yellow" if isinstance(block, Missing) else "", markup=False)
                console.print(indent(block.source, 4 * " "), markup=False, soft_wrap=True)
            else:
                console.print(_shown(block))


def _shown(block: Block) -> RenderableType:
    match block:
        case Loss():
            return RichText(f"f(y, h){block.place} = {block.formula}", "bold")
        case Points():
            lines = (f"{'  ' if line.startswith('  ') else ''}- {line.strip()}" for line in block.lines)
            return RichText("\n".join([block.head, *lines]))
        case Table():
            return block
        case Pictures():
            return RichText("\n".join(str(figure.get_label()) for figure in block.figures))
        case Details():
            return RichText(f"[{block.summary}: in report.html]", "dim")
    return RichText(getattr(block, "words", ""))
