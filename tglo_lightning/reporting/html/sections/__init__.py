"""The sections of the report: what each shows, and what it says if there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tglo_lightning.reporting.html.blocks import Missing, Section
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
        _shown(build, files)
        for build in (
            comparison,
            loss,
            partial(theory, num_classes=num_classes),
            search,
            finalists,
            curves,
            attraction,
            robustness,
            setup,
        )
    ]


def _shown(build: Callable[[RunFiles], Section], files: RunFiles) -> Section:
    """A section; a line in its place if the values in the files are such that it cannot be made."""
    try:
        return build(files)
    except ImportError:
        raise
    except Exception as error:  # the types of the values were checked, not all that they may be
        name = getattr(build, "func", build).__name__
        words = f"This part cannot be shown: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Section(name, name.capitalize()).add(Missing(words))
