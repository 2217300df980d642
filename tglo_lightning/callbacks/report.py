"""The files of a search: its report, written when the search ends and completed when the fit does; and the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tglo_lightning.callbacks.attraction import AttractionMonitor
from tglo_lightning.callbacks.curves import CurveRecorder
from tglo_lightning.module.messages import tell
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.reporting.html.files import Fit
from tglo_lightning.reporting.loggers import boards
from tglo_lightning.search import SearchResult

__all__ = ["SearchReport"]


class SearchReport:
    """Follows a fit, writes ``report.html`` beside the search's result, and hands the files to the loggers.

    On every rank, though the first alone writes: they compute metrics together. If not to ``write``, the loggers get
    the result alone.
    """

    def __init__(self, write: bool) -> None:
        self.write = write
        self.reset()

    def reset(self) -> None:
        """Forget an earlier fit, which may have failed before its end."""
        self._recorder: CurveRecorder | None = None
        self._path: Path | None = None
        self._kept = ""

    def on_search_end(self, result: SearchResult, path: Path | None) -> None:
        """Write the report of the search; ``path`` is the result's file, ``None`` if there is none."""
        self._recorder, self._path, self._kept = CurveRecorder(), path, result.kept
        if self.write and path is not None and (written := report_quietly(path)) is not None:
            tell(f"TaylorGLO: the report of the search is {written}; the end of this fit completes it.")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the module has logged."""
        if self._recorder is not None:
            self._recorder.on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: Any) -> None:
        """Write the report again, with the curves and the attraction of this fit; hand out the files."""
        recorder, path, kept = self._recorder, self._path, self._kept
        self.reset()
        if recorder is None or path is None or not trainer.is_global_zero:
            return
        files = [path]
        if self.write and recorder.epochs:
            watched = {c.slot.path: c.path for c in trainer.callbacks if isinstance(c, AttractionMonitor) and c.path}
            if len(watched) == 1:
                watched = {"this training": next(iter(watched.values()))}
            report = report_quietly(path, Fit(kept, recorder.curves, watched))
            files += [] if report is None else [report]
        checkpoint = trainer.checkpoint_callback
        weights = [getattr(checkpoint, f"{which}_model_path", "") for which in ("last", "best")]
        weights = [file for file in weights if file and Path(file).is_file()]
        for board in boards(trainer):
            board.files("search", "search", files)
            if weights:
                board.files("checkpoint", "model", [Path(weights[0])])
