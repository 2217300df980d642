"""The table of a run's result."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def results_table(result: Mapping[str, Any]) -> Table:
    """One row a loss, one column a test metric, from a run's `result.json`.

    Cells are mean ± sample standard deviation over the seeds. The last rows hold the one-sided p-values of Welch's
    tests (metalearned better than original, better than its baseline), where there are any.
    """
    losses = result["losses"]
    metrics = list(losses["original"]["test"])
    n = len(losses["original"]["test"][metrics[0]]["values"])
    over = "one seed" if n == 1 else f"mean ± sd over {n} seeds"
    title = f"Test data, {over} (n = {n}); kept: {result['kept']}"
    table = Table("loss", "name", *(f"test/{m}" for m in metrics), title=title)
    for kind, loss in losses.items():
        table.add_row(kind, loss["name"], *(_cell(loss["test"][m]) for m in metrics))
    tests = {"original": result["welch"], "baseline": result.get("welch_baseline")}
    for reference, p_values in tests.items():
        if p_values:
            table.add_section()
            cells = (_p_value(p_values[m]["p_one_sided"]) for m in metrics)
            table.add_row("Welch p", f"better than {reference}", *cells)
    return table


def _cell(metric: Mapping[str, Any]) -> str:
    if metric["mean"] is None:
        return "not finite"
    return f"{metric['mean']:.4f}" + ("" if metric["std"] is None else f" ± {metric['std']:.4f}")


def _p_value(p: float | None) -> str:
    return "n/a" if p is None else f"{p:.2g}"
