"""From the files of a run to the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tglo_lightning._version import __version__
from tglo_lightning.arguments import integer, optional
from tglo_lightning.reporting.html.files import SEARCH, RunFiles, read_run
from tglo_lightning.search.result import SearchResult

__all__ = ["write_report"]

REPORT = "report.html"


def write_report(
    run: str | Path | SearchResult,
    output: str | Path | None = None,
    *,
    attacks: Mapping[str, str | Path] | None = None,
    attraction: Mapping[str, str | Path] | None = None,
    num_classes: int | None = None,
) -> Path:
    """Write the report of a run: one HTML file, plots included, that opens without a network.

    What the run does not have is said in the report, with the way to get it.

    Args:
        run: a directory of ``tglo-train`` or of a search with a journal, finished or not; the journal or ``.json`` file
            of a search, where several lie in one directory; or the ``result`` of a ``TaylorGLO`` callback.
        output: file to write; ``report.html`` in the directory by default.
        attacks: further attack reports by name: files that ``tglo-attack`` wrote, or its directories. Those below the
            run's own directory are found.
        attraction: further ``.npz`` files of ``AttractionMonitor`` by name; those below the run's own directory are
            found.
        num_classes: number of classes, for a run whose files do not know it.

    Returns:
        The path of the report.

    Raises:
        ImportError: plotly, latex2mathml or jinja2 is not installed.
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
    page = render(files, num_classes)
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def render(files: RunFiles, num_classes: int | None = None) -> str:
    """The page of a run.

    Raises:
        ImportError: plotly, latex2mathml or jinja2 is not installed.
    """
    try:
        import latex2mathml  # noqa: F401  (for `mathml`)
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(f"The report needs {error.name}: pip install 'tglo-lightning[plots]'") from error
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from tglo_lightning.reporting.html.mathml import mathml
    from tglo_lightning.reporting.html.sections import sections
    from tglo_lightning.reporting.html.verdict import verdict

    loader = PackageLoader("tglo_lightning.reporting.html")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["mathml"] = mathml
    assert loader is not None

    def source(name: str) -> Markup:
        # Our own style and script, and Plotly's: the only text that goes into the page as it is
        return Markup(loader.get_source(environment, name)[0])

    context: dict[str, Any] = {
        "files": files,
        "verdict": verdict(files),
        "sections": sections(files, num_classes),
        "version": __version__,
        "style": source("report.css"),
        "script": source("report.js"),
        "plotly": Markup(get_plotlyjs()),
    }
    return environment.get_template("report.html").render(context)
