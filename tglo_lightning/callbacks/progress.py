"""What a search shows while it runs: a progress bar, and numbers in the Trainer's loggers."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tglo_lightning.reporting.dashboard import is_wandb
from tglo_lightning.search import Evaluation, SearchSettings, count_trainings

__all__ = ["SearchMonitor"]


class SearchMonitor:
    """Follows a search: a bar over its trainings, ``search/*`` in every logger with the generation as axis.

    Args:
        trainer: the outer Trainer; the bar is off where its progress bar is off.
        settings: the arguments of the search.
        monitor: name of the metric.
    """

    def __init__(self, trainer: Any, settings: SearchSettings, monitor: str) -> None:
        bar = trainer.progress_bar_callback
        self.trainer = trainer
        self.settings = settings
        self.monitor = monitor
        self.generation = 1
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            disable=bar is None or bar.is_disabled or not trainer.is_global_zero,
        )

    def __enter__(self) -> SearchMonitor:
        for logger in self.trainer.loggers:
            if is_wandb(logger):
                # The axis is Lightning's global step unless told otherwise
                logger.experiment.define_metric("search/generation")
                logger.experiment.define_metric("search/*", step_metric="search/generation")
        self.progress.start()
        self.task = self.progress.add_task(self._description(), total=count_trainings(self.settings), best="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def _description(self) -> str:
        return f"Metalearning the loss, generation {self.generation}/{self.settings.generations}"

    def on_evaluation(self, stage: str, evaluation: Evaluation, best: float) -> None:
        """Move the bar on."""
        description = self._description() if stage == "generation" else "Training the finalists again"
        shown = "" if math.isnan(best) else f"best {self.monitor} {best:.4g}"
        self.progress.update(self.task, advance=1, description=description, best=shown)

    def on_generation(self, metrics: dict[str, float]) -> None:
        """Log the numbers of a generation."""
        generation = int(metrics["generation"])
        self.generation = min(generation + 2, self.settings.generations)
        self.log(metrics, generation)

    def log(self, metrics: dict[str, float], generation: int) -> None:
        """Send ``metrics``, named ``search/...``, to every logger."""
        named = {f"search/{name}": value for name, value in metrics.items()}
        named["search/generation"] = generation
        for logger in self.trainer.loggers:
            logger.log_metrics(named, step=None if is_wandb(logger) else generation)
