"""The report of a search: written when the search ends, completed when the fit does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tglo_lightning.callbacks.attraction import AttractionMonitor
from tglo_lightning.callbacks.curves import CurveRecorder
from tglo_lightning.module.messages import tell
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.reporting.html.fit import Fit
from tglo_lightning.search import SearchResult

__all__ = ["SearchReport"]


class SearchReport:
    """Follows a fit and writes ``report.html`` beside the search's result.

    On every rank, though the first alone writes: they compute metrics together.
    """

    def __init__(self) -> None:
        self._recorder: CurveRecorder | None = None
        self._path: Path | None = None
        self._kept = ""

    def reset(self) -> None:
        """Forget an earlier fit, which may have failed before its end."""
        self._recorder = None

    def on_search_end(self, result: SearchResult, path: Path | None) -> None:
        """Write the report of the search; ``path`` is the result's file, ``None`` if there is none."""
        self._recorder, self._path, self._kept = CurveRecorder(), path, result.kept
        if path is not None and (written := report_quietly(path)) is not None:
            tell(f"TaylorGLO: the report of the search is {written}; the end of this fit completes it.")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the module has logged."""
        if self._recorder is not None:
            self._recorder.on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: Any) -> None:
        """Write the report again, with the curves and the attraction of this fit."""
        recorder, self._recorder = self._recorder, None
        if recorder is None or self._path is None or not trainer.is_global_zero or not recorder.epochs:
            return
        watched = {c.slot.path: c.path for c in trainer.callbacks if isinstance(c, AttractionMonitor) and c.path}
        if len(watched) == 1:
            watched = {"this training": next(iter(watched.values()))}
        report_quietly(self._path, Fit(self._kept, recorder.curves, watched))
