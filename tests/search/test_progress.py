"""The bar over the trainings of a search, as a terminal shows it."""

import io

import pytest
from rich.console import Console

from tglo_lightning.search import Evaluation, SearchSettings
from tglo_lightning.search.progress import SearchBar


@pytest.mark.parametrize("monitor", ["val_acc", "validation/accuracy_of_all_classes"])
def test_the_figures_are_whole_at_80_columns(monitor):
    bar = SearchBar(SearchSettings(generations=10, population=20), monitor, disable=True)
    bar.progress.disable = False
    bar.task = bar.progress.add_task(bar._description(), total=212, best="")
    bar.generation = 10
    bar.progress.start_task(bar.task)
    lines = []
    for stage in ("generation", "confirmation"):
        for _ in range(90):
            bar.on_evaluation(stage, Evaluation(0.6237, "ok", 1.0), 0.6237)
        console = Console(width=80, file=io.StringIO(), color_system=None)
        console.print(bar._table())
        [line] = console.file.getvalue().splitlines()
        lines.append(line)
    for line, (head, count) in zip(lines, [("Generation 10/10", " 90/212"), ("Confirmation", "180/212")], strict=True):
        assert line.startswith(head)
        assert f"{count} best {monitor[:7]}" in line
        assert " 0.6237 0:00:00 left " in line
        assert line.rstrip()[-7:].count(":") == 2
