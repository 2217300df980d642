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
        output: file to write; ``report.html`` in the directory by default.
        attacks: further attack reports by name: files that ``tglo-attack`` wrote, or its directories. Those below the
            run's own directory are found.
        attraction: further ``.npz`` files of ``AttractionMonitor`` by name; those below the run's own directory are
            found.
        num_classes: number of classes, for a run whose files do not know it.

    Returns:
        The path of the report.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no run to report, or ``num_classes`` is below 2.
    """
    num_classes = optional(integer, "num_classes", num_classes, 2)
    if isinstance(run, SearchResult):
        if output is None:
            raise ValueError("`output` must name a file where `run` is a result and not a directory.")
        files = RunFiles(name="search", search=run)
    else:
        files = read_run(run, attacks, attraction)
        if output is None:
            assert files.folder is not None
            output = files.folder / (REPORT if files.stem == SEARCH else f"{files.stem}-{REPORT}")
    return write_whole(Path(output), _render(files, num_classes))


def print_report(run: str | Path, console: Console, *, num_classes: int | None = None, **given: Any) -> None:
    """Print what :func:`write_report` writes: pictures as their descriptions, without what the page folds.

    Args:
        run, num_classes: as of :func:`write_report`.
        console: where to.
        **given: ``attacks`` and ``attraction`` of :func:`write_report`.

    Raises:
        ImportError, ValueError: as of :func:`write_report`.
    """
    from tglo_lightning.reporting.html.terminal import print_blocks

    files = read_run(run, **given)
    print_blocks(console, *_content(files, optional(integer, "num_classes", num_classes, 2)), files.problems)


def _content(files: RunFiles, num_classes: int | None) -> tuple[Headline, list[Section]]:
    from tglo_lightning.reporting.html.sections import sections

    try:
        head = headline(files)
    except Exception as error:  # see `sections`
        head = Headline("plain", f"What was found cannot be told: {type(error).__name__}.")
    return head, sections(files, num_classes or files.num_classes)


def _render(files: RunFiles, num_classes: int | None) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from tglo_lightning.reporting import pictures

    loader = PackageLoader("tglo_lightning.reporting.html")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    light, dark = pictures.themes()
    environment.filters |= {"typeset": typeset, "svg": pictures.svg}
    environment.tests["formula"] = lambda cell: isinstance(cell, Formula)
    head, sections = _content(files, num_classes)
    return environment.get_template("report.html").render(
        files=files,
        head=head,
        sections=sections,
        version=__version__,
        style=loader.get_source(environment, "report.css")[0],
        light=light,
        dark=dark,
    )


def report_quietly(run: str | Path, fit: Fit | None = None) -> Path | None:
    """:func:`write_report` at the end of a run: what goes wrong is one line in the log, and never an error.

    Args:
        run: as of :func:`write_report`.
        fit: the fit that followed the search whose file ``run`` is; it is written beside that.

    Returns:
        The path of the report; None if there is none.
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
