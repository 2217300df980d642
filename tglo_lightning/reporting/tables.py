"""Every table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from tglo_lightning.reporting.comparison import Comparison
from tglo_lightning.reporting.numbers import LOSSES, direction, mean_sd, p_value, signed
from tglo_lightning.wording import counted

if TYPE_CHECKING:
    from tglo_lightning.reporting.robustness import RobustnessReport

__all__ = ["comparison_legend", "comparison_table", "results_table", "robustness_table"]


def results_table(result: Mapping[str, Any]) -> Table:
    """Mean ± sd of each loss and test metric of a `result.json`; below, one-sided p of t-tests paired by seed."""
    losses = result["losses"]
    metrics = list(losses["original"]["test"])
    n = len(losses["original"]["test"][metrics[0]]["values"])
    over = "one seed" if n == 1 else f"mean ± sd over {n} seeds"
    title = f"Test data, {over} (n = {n}); kept: {result['kept']}"
    table = Table("loss", "name", *(f"test/{m}" for m in metrics), title=title)
    for kind in LOSSES:
        if kind in losses:
            cells = (mean_sd(losses[kind]["test"][m]["values"]) for m in metrics)
            table.add_row(LOSSES[kind], losses[kind]["name"], *cells)
    table.add_section()
    for reference, p_values in result["tests"].items():
        cells = (p_value(p_values[m]["p_one_sided"]) for m in metrics)
        table.add_row("p, paired by seed", f"better than {LOSSES[reference]}", *cells)
    return table


def comparison_table(comparison: Comparison, condition: str, metric: str, *, markdown: bool = False) -> Table:
    """The losses under one condition by one metric, against the reference; as text or as Markdown."""
    title = f"{condition + ': ' if condition else ''}test/{metric} ({direction(metric)} is better)"
    table = Table(title=title, box=box.MARKDOWN if markdown else box.HEAVY_HEAD, title_justify="left")
    table.add_column("loss", no_wrap=True)
    for name in ("n", "mean ± sd", "difference", "95 % interval", "p (better)", "p (two-sided)", "Holm"):
        table.add_column(name, justify="right")
    for row in comparison.select(condition, metric):
        tests = (row.p_one_sided, row.p_two_sided, row.holm_two_sided)
        interval = "n/a" if row.interval is None else " to ".join(map(signed, row.interval))
        against = [signed(row.difference), interval, *map(p_value, tests)]
        if row.loss == comparison.reference:
            against = ["reference"] + [""] * 4
        table.add_row(row.loss, str(row.n), mean_sd(row.values), *against)
    return table


def comparison_legend(comparison: Comparison, metric: str) -> str:
    """What the columns of :func:`comparison_table` mean, in one paragraph."""
    return (
        f"n: one value a {comparison.unit}. Differences from {comparison.reference} over the seeds of both, with "
        "95 % confidence interval and paired t-test; Holm: the two-sided p corrected for all "
        f"{comparison.comparisons(metric)} comparisons by test/{metric}."
    )


def robustness_table(report: RobustnessReport) -> Table:
    """One row an attack, one column an epsilon, and the worst case over the attacks below.

    Passes are in images, forward and backward; the last column is the share of gradients that are exactly zero.
    """
    title = (
        f"Robust accuracy, {report.norm}, {counted(report.samples, 'image')}, clean accuracy "
        f"{report.clean_accuracy:.1%}, seed {report.seed}"
    )
    radii = (f"{epsilon:g}" for epsilon in report.epsilons)
    table = Table("attack", *radii, "forward", "backward", "zero", title=title)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == "attack" else "right"
    for attack in report.attacks:
        zero = "-" if attack.zero_gradients is None else f"{attack.zero_gradients:.1%}"
        cells = [f"{value:.3f}" for value in attack.accuracy]
        table.add_row(attack.name, *cells, f"{attack.forward:,}", f"{attack.backward:,}", zero)
    table.add_section()
    worst = [f"{value:.3f}" for value in report.worst_case]
    table.add_row("worst case", *worst, f"{report.forward:,}", f"{report.backward:,}", "")
    return table
