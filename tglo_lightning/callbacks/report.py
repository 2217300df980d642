"""The files of a search: its report, written when the search ends and completed when the fit does; and the loggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tglo_lightning.callbacks.attraction import AttractionMonitor
from tglo_lightning.callbacks.curves import CurveRecorder
from tglo_lightning.callbacks.search_attraction import attraction_path
from tglo_lightning.module.messages import tell
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.reporting.html.files import Fit
from tglo_lightning.reporting.loggers import boards, draw
from tglo_lightning.reporting.results import original_name
from tglo_lightning.search import SearchResult


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
        self._result: SearchResult | None = None
        self._attraction: Mapping[str, AttractionRecord] = {}

    def on_search_end(
        self, result: SearchResult, path: Path | None, attraction: Mapping[str, AttractionRecord]
    ) -> None:
        """Write the report of a search, its result at ``path`` if that was written; keep the attraction by name."""
        self._recorder, self._path, self._result = CurveRecorder(), path, result
        self._attraction = attraction
        if self.write and path is not None and (written := report_quietly(path)) is not None:
            tell(f"TaylorGLO: the report of the search is {written}; the end of this fit completes it.")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the module has logged."""
        if self._recorder is not None:
            self._recorder.on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: Any) -> None:
        """Write the report again, with the curves and the attraction of this fit; hand out the files."""
        recorder, path, result, attraction = self._recorder, self._path, self._result, self._attraction
        self.reset()
        if recorder is None or result is None or not trainer.is_global_zero:
            return
        monitors = [c for c in trainer.callbacks if isinstance(c, AttractionMonitor) and c.record]
        if result.curves is not None:
            # It has measured the winner too, at each of its checks
            monitors = []
        elif result.kept == "original" or not monitors:
            attraction = {}
        watched = {result.kept if len(monitors) == 1 else m.slot.path: m.path for m in monitors if m.path}
        shown = boards(trainer)
        if attraction and monitors and monitors[0].record and shown:
            titled = {f"original: {original_name(result)}": attraction["original"], "kept loss": monitors[0].record}
            draw(shown, "attraction/losses", lambda: pictures.attraction(titled))
        if path is None:
            return
        files = [path]
        if self.write and recorder.epochs:
            watched = {name: attraction_path(path, name) for name in attraction} | watched
            report = report_quietly(path, Fit(result.kept, recorder.curves, watched))
            files += [] if report is None else [report]
        checkpoint = trainer.checkpoint_callback
        weights = [getattr(checkpoint, f"{which}_model_path", "") for which in ("last", "best")]
        weights = [file for file in weights if file and Path(file).is_file()]
        for board in shown:
            board.files("search", "search", files)
            if weights:
                board.files("checkpoint", "model", [Path(weights[0])])
