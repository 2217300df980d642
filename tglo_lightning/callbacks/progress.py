"""What a search shows while it runs: a progress bar, and numbers in the Trainer's loggers."""

from __future__ import annotations

from typing import Any

from typing_extensions import Self

from tglo_lightning.reporting.dashboard import is_wandb
from tglo_lightning.search import SearchSettings
from tglo_lightning.search.progress import SearchBar

__all__ = ["SearchMonitor"]


class SearchMonitor(SearchBar):
    """Follows a search: a bar over its trainings, ``search/*`` in every logger with the generation as axis.

    Args:
        trainer: the outer Trainer; the bar is off where its progress bar is off.
        settings: the arguments of the search.
        monitor: name of the metric.
    """

    def __init__(self, trainer: Any, settings: SearchSettings, monitor: str) -> None:
        bar = trainer.progress_bar_callback
        super().__init__(settings, monitor, disable=bar is None or bar.is_disabled or not trainer.is_global_zero)
        self.trainer = trainer

    def __enter__(self) -> Self:
        for logger in self.trainer.loggers:
            if is_wandb(logger):
                # The axis is Lightning's global step unless told otherwise
                logger.experiment.define_metric("search/generation")
                logger.experiment.define_metric("search/*", step_metric="search/generation")
        return super().__enter__()

    def on_generation(self, metrics: dict[str, float]) -> None:
        """Log the numbers of a generation."""
        super().on_generation(metrics)
        self.log(metrics, int(metrics["generation"]))

    def log(self, metrics: dict[str, float], generation: int) -> None:
        """Send ``metrics``, named ``search/...``, to every logger."""
        named = {f"search/{name}": value for name, value in metrics.items()}
        named["search/generation"] = generation
        for logger in self.trainer.loggers:
            logger.log_metrics(named, step=None if is_wandb(logger) else generation)
