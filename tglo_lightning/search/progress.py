"""A progress bar over the trainings of a search, or the checks of a race."""

from __future__ import annotations

import math
from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text
from typing_extensions import Self

from tglo_lightning.search.evaluator import Evaluation
from tglo_lightning.search.settings import SearchSettings

# Letters of a metric's name that leave room for the rest of the line on a terminal of 80 columns
LONGEST = 12
# Columns of a terminal that has room for the prior
WIDE = 100
# What is done after so many seconds comes from a journal, and says nothing about the pace
REPLAYED = 0.5


class Bar:
    """A progress bar with the best metric and the time left, while it is entered as a context.

    ``unit`` stands behind the ``total`` number of steps; ``prior``, where a search starts, is shown on wide terminals.
    """

    def __init__(
        self, description: str, total: int, unit: str, monitor: str, *, prior: str = "", disable: bool = False
    ) -> None:
        self.description, self.total = description, total
        self._name = monitor if len(monitor) <= LONGEST else f"{monitor[: LONGEST - 1]}…"
        self._replayed = 0.0
        self._cell: Any = None
        self.progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            # Alone may shrink on a narrow terminal
            BarColumn(),
            TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {unit}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[best]}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("left"),
            _TimeLeft(table_column=Column(no_wrap=True)),
            disable=disable,
        )
        if prior and self.progress.console.width >= WIDE:
            self.progress.columns = (*self.progress.columns, TextColumn(f"prior {prior}", markup=False))

    def __enter__(self) -> Self:
        self.task = self.progress.add_task(self.description, total=self.total, best="", end=math.nan)
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

    def advance(self, best: float) -> None:
        """Move the bar on by a step, with the best metric so far."""
        [task] = self.progress.tasks
        done, elapsed = task.completed + 1, task.elapsed or 0.0
        if elapsed < REPLAYED:
            self._replayed = done
        else:
            task.fields["end"] = elapsed * (1 + (self.total - done) / (done - self._replayed))
        shown = "" if math.isnan(best) else f"best {self._name} {best:.4g}"
        self.progress.update(self.task, advance=1, description=self.description, best=shown)
        if self._cell is not None:
            self._cell.update(self._table())

    def _table(self) -> Table:
        return self.progress.make_tasks_table(self.progress.tasks)


class SearchBar(Bar):
    """Follows a search with a bar over its trainings."""

    def __init__(self, settings: SearchSettings, monitor: str, *, prior: str = "", disable: bool = False) -> None:
        self.settings = settings
        self.generation = 1
        super().__init__(self._generation(), settings.trainings, "max", monitor, prior=prior, disable=disable)

    def _generation(self) -> str:
        return f"Generation {self.generation}/{self.settings.generations}"

    def on_evaluation(self, stage: str, evaluation: Evaluation, best: float) -> None:
        """Move the bar on."""
        self.description = self._generation() if stage == "generation" else stage.capitalize()
        self.advance(best)

    def on_generation(self, metrics: dict[str, float]) -> None:
        """Name the next generation."""
        self.generation = min(int(metrics["generation"]) + 1, self.settings.generations)


class _TimeLeft(ProgressColumn):
    """Time left at the pace of all steps so far, which may come in bursts, or many minutes apart."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Count down to the estimated end."""
        left = 0.0 if task.finished else task.fields["end"] - (task.elapsed or 0.0)
        shown = "-:--:--" if math.isnan(left) else str(timedelta(seconds=max(0, round(left))))
        return Text(shown, style="progress.remaining")
