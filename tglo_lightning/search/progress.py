"""A progress bar over the trainings of a search."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from typing_extensions import Self

from tglo_lightning.search.evaluator import Evaluation
from tglo_lightning.search.settings import SearchSettings

# Letters of a metric's name that leave room for the rest of the line on a terminal of 80 columns
LONGEST = 12


class SearchBar:
    """Follows a search for the best ``monitor`` with a bar over its trainings, while it is entered as a context."""

    def __init__(self, settings: SearchSettings, monitor: str, *, disable: bool = False) -> None:
        self.settings = settings
        self.monitor = monitor
        self.generation = 1
        self._cell: Any = None
        self.progress = Progress(
            TextColumn("{task.description}"),
            # Alone may shrink on a narrow terminal
            BarColumn(),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[best]}"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("left"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            disable=disable,
        )

    def __enter__(self) -> Self:
        self.task = self.progress.add_task(self._description(), total=self.settings.trainings, best="")
        if self.progress.disable:
            return self
        if self.progress.console.is_jupyter:
            # Rich's own display needs ipywidgets, and nothing of it is left in a saved notebook
            from IPython.display import display

            self._cell = display(self._table(), display_id=True)
        else:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def _table(self) -> Table:
        return self.progress.make_tasks_table(self.progress.tasks)

    def _description(self) -> str:
        return f"Generation {self.generation}/{self.settings.generations}"

    def on_evaluation(self, stage: str, evaluation: Evaluation, best: float) -> None:
        """Move the bar on."""
        description = self._description() if stage == "generation" else stage.capitalize()
        name = self.monitor if len(self.monitor) <= LONGEST else f"{self.monitor[: LONGEST - 1]}…"
        shown = "" if math.isnan(best) else f"best {name} {best:.4g}"
        self.progress.update(self.task, advance=1, description=description, best=shown)
        if self._cell is not None:
            self._cell.update(self._table())

    def on_generation(self, metrics: dict[str, float]) -> None:
        """Name the next generation."""
        self.generation = min(int(metrics["generation"]) + 1, self.settings.generations)
