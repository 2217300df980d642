"""The report of a run: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from tglo_lightning._version import __version__
from tglo_lightning.arguments import integer, optional
from tglo_lightning.reporting.html.blocks import Formula, Section, typeset
from tglo_lightning.reporting.html.files import SEARCH, Fit, RunFiles, fit_path, read_run
from tglo_lightning.reporting.html.headline import Headline, headline
from tglo_lightning.search.result import SearchResult
from tglo_lightning.untrusted import write_whole

__all__ = ["print_report", "report_quietly", "write_report"]

REPORT = "report.html"
log = logging.getLogger(__name__)


def write_report(
    run: str | Path | SearchResult,
    output: str | Path | None = None,
    *,
    attacks: Mapping[str, str | Path] | None = None,
    attraction: Mapping[str, str | Path] | None = None,
    num_classes: int | None = None,
) -> Path:
    """Write the report of a run: one HTML file, pictures included, that opens without a network.

    What the run does not have is said in the report, with the way to get it.

    Args:
        run: a directory of ``tglo-train`` or of a search with a journal, finished or not; the journal or ``.json`` file
            of a search, if several lie in one directory; or the ``result`` of a ``TaylorGLO`` callback.
        output: file to write, and return; ``report.html`` in the directory by default.
        attacks: further attack reports by name, beside those below the run's own directory: files that ``tglo-attack``
            wrote, or its directories.
        attraction: further ``.npz`` files of ``AttractionMonitor`` by name.
        num_classes: number of classes, for a run whose files do not know it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no run to report, or ``num_classes`` is below 2.
    """
    classes = optional(integer, "num_classes", num_classes, 2)
    if isinstance(run, SearchResult):
        if output is None:
            raise ValueError("`output` must name a file where `run` is a result and not a directory.")
        files = RunFiles(name="search", search=run)
    else:
        files = read_run(run, attacks, attraction)
        if output is None:
            assert files.folder is not None
            output = files.folder / (REPORT if files.stem == SEARCH else f"{files.stem}-{REPORT}")
    files.classes = classes
    return write_whole(Path(output), _render(files))


def print_report(run: str | Path, console: Console, *, num_classes: int | None = None, **given: Any) -> None:
    """Print what :func:`write_report`, with the same arguments, writes.

    Pictures come as their descriptions, without what the page folds.
    """
    from tglo_lightning.reporting.html.terminal import print_blocks

    files = read_run(run, **given)
    files.classes = optional(integer, "num_classes", num_classes, 2)
    print_blocks(console, *_content(files), files.problems)


def _content(files: RunFiles) -> tuple[Headline, list[Section]]:
    from tglo_lightning.reporting.html.sections import sections

    try:
        head = headline(files)
    except Exception as error:  # see `sections`
        head = Headline("plain", f"What was found cannot be told: {type(error).__name__}.")
    return head, sections(files)


def _render(files: RunFiles) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from tglo_lightning.reporting import pictures

    loader = PackageLoader("tglo_lightning.reporting.html")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    light, dark = pictures.themes()
    environment.filters |= {"typeset": typeset, "svg": pictures.svg}
    environment.tests["formula"] = lambda cell: isinstance(cell, Formula)
    head, sections = _content(files)
    style = loader.get_source(environment, "report.css")[0]
    values = {"files": files, "head": head, "sections": sections, "style": style, "light": light, "dark": dark}
    return environment.get_template("report.html").render(values, version=__version__)


def report_quietly(run: str | Path, fit: Fit | None = None) -> Path | None:
    """:func:`write_report` at the end of a run: what goes wrong is one line in the log, and never an error.

    ``fit`` followed the search whose file ``run`` is, and is written beside that.
    """
    try:
        if fit is not None:
            fit.save(fit_path(Path(run)))
        return write_report(run)
    except ImportError as error:
        log.info("No report.html: %s", error)
    except Exception as error:  # a picture of a result must not cost the result
        log.warning("No report.html: %s: %s", type(error).__name__, " ".join(str(error).split()))
    return None
