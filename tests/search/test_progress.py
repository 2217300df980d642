"""The bar over the trainings of a search, as a terminal shows it."""

import io

import pytest
from rich.console import Console

from tglo_lightning.search import Evaluation, SearchSettings
from tglo_lightning.search.progress import SearchBar


def shown(bar, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(bar._table())
    [line] = console.file.getvalue().splitlines()
    return line


def started(clock, monitor="val_acc"):
    """A bar that takes the time from a list of one number of seconds."""
    bar = SearchBar(SearchSettings(generations=10, population=20), monitor, disable=True)
    bar.progress.get_time = lambda: clock[0]
    return bar.__enter__()


@pytest.mark.parametrize("monitor", ["val_acc", "validation/accuracy_of_all_classes"])
def test_the_figures_are_whole_at_80_columns(monitor):
    clock = [0.0]
    bar = started(clock, monitor)
    bar.generation = 10
    for stage, head, count in (
        ("generation", "Generation 10/10", " 90/230"),
        ("confirmation", "Confirmation", "180/230"),
    ):
        for _ in range(90):
            clock[0] += 20
            bar.on_evaluation(stage, Evaluation(0.6237, "ok", 1.0), 0.6237)
        line = shown(bar)
        assert line.startswith(head)
        assert f"{count} max best {monitor[:7]}" in line
        assert " 0.6237 " in line
        assert " left " in line
        assert line.rstrip()[-7:].count(":") == 2


def test_the_time_left_of_long_trainings_and_of_bursts():
    """Ten trainings of a pass end together, 100 seconds after the pass before; five were in the journal."""
    clock = [0.0]
    bar = started(clock)
    assert "left -:--:--" in shown(bar)
    score = Evaluation(0.5, "ok", 10.0)
    for _ in range(5):
        bar.on_evaluation("generation", score, 0.5)
    assert "left -:--:--" in shown(bar)
    for _ in range(2):
        clock[0] += 100
        for _ in range(10):
            bar.on_evaluation("generation", score, 0.5)
    # 205 are left, 10 seconds each
    assert "0:03:20 left 0:34:10" in shown(bar)
    clock[0] += 10
    assert "0:03:30 left 0:34:00" in shown(bar)
