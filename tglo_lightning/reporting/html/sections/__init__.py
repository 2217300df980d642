"""The sections of the report: what each shows, and what it says if there is nothing to show."""

from __future__ import annotations

from tglo_lightning.reporting.html.blocks import Section
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.sections.comparison import comparison
from tglo_lightning.reporting.html.sections.loss import loss, theory
from tglo_lightning.reporting.html.sections.search import finalists, search
from tglo_lightning.reporting.html.sections.setup import setup
from tglo_lightning.reporting.html.sections.training import attraction, curves, robustness


def sections(files: RunFiles, num_classes: int | None = None) -> list[Section]:
    """All sections, in the order of the page.

    Args:
        files: what there is of the run.
        num_classes: number of classes, if it is known.
    """
    return [
        comparison(files),
        loss(files),
        theory(files, num_classes),
        search(files),
        finalists(files),
        curves(files),
        attraction(files),
        robustness(files),
        setup(files),
    ]
