"""The report of a run: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

import logging
from pathlib import Path

from tglo_lightning.reporting.html.fit import Fit, fit_path
from tglo_lightning.reporting.html.page import write_report

__all__ = ["report_quietly", "write_report"]

log = logging.getLogger(__name__)


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
