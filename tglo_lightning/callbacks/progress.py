"""What a search shows while it runs: a progress bar, and what it finds in the Trainer's loggers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.loggers import Board, draw
from tglo_lightning.reporting.results import candidates_table, evolved
from tglo_lightning.search import SearchResult, SearchSettings
from tglo_lightning.search.progress import SearchBar
from tglo_lightning.search.summary import outcome_metrics, summary


def hides_bars(trainer: Any) -> bool:
    """Whether progress bars are off in this process."""
    bar = trainer.progress_bar_callback
    return bar is None or bar.is_disabled or not trainer.is_global_zero


def log_outcome(boards: Sequence[Board], result: SearchResult, step: int) -> None:
    """Log what was kept and what it cost, as ``search/*``."""
    values: dict[str, Any] = {
        **outcome_metrics(result),
        "kept": result.kept,
        "formula": result.criterion.formula or result.original.name,
        "criterion": json.dumps(result.criterion.to_dict()),
        "cost_trainings": result.trainings,
        "cost_seconds": result.seconds,
        "summary": summary(result),
    }
    for board in boards:
        board.outcome({f"search/{name}": value for name, value in values.items()}, step)


class SearchMonitor(SearchBar):
    """Follows a search: a bar over its trainings; ``search/*`` in every logger, with the generation as axis."""

    def __init__(
        self, boards: Sequence[Board], settings: SearchSettings, monitor: str, *, prior: str = "", disable: bool = False
    ) -> None:
        super().__init__(settings, monitor, prior=prior, disable=disable)
        self.boards = boards
        self._moved: set[str] = set()

    def on_generation(self, metrics: dict[str, float]) -> None:
        """Log the numbers of a generation; those of parameters that the search holds fixed make no series."""
        super().on_generation(metrics)
        values = {name: value for name, value in metrics.items() if name != "generation"}
        fixed = {name: 1.0 if name == "step" else 0.0 for name in values if name == "step" or name.startswith("theta_")}
        self._moved |= {name for name, value in values.items() if value != fixed.get(name)}
        named = {f"search/{name}": value for name, value in values.items() if name in self._moved}
        generation = int(metrics["generation"])
        for board in self.boards:
            board.log(named, "search/generation", generation, generation)

    def on_search_end(self, result: SearchResult) -> None:
        """Log what was kept and what it cost, the candidates, and the pictures."""
        if not self.boards:
            return
        log_outcome(self.boards, result, self.settings.generations)
        columns, rows = candidates_table(result)
        for board in self.boards:
            board.table("search/candidates", columns, rows, scatter=result.monitor)
        draw(self.boards, "search/fitness_of_candidates", lambda: pictures.fitness(result))
        if evolved(result):
            draw(self.boards, "search/parameters", lambda: pictures.parameters(result))
        if result.original.fitness:
            draw(self.boards, "search/finals", lambda: pictures.finals(result))
