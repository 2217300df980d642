"""Tables that the report and the terminal show alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from tglo_lightning.reporting.comparison import Comparison
from tglo_lightning.reporting.numbers import LOSSES, direction, mean_sd, p_value, signed
from tglo_lightning.wording import counted

if TYPE_CHECKING:
    from tglo_lightning.reporting.robustness import RobustnessReport


@dataclass
class Table:
    """A table, which a console of rich prints, as text or as Markdown: the first cell of a row is its heading."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    foot: str = ""
    markdown: bool = False

    def __rich__(self) -> RenderableType:
        style = box.MARKDOWN if self.markdown else box.SIMPLE_HEAD
        table = RichTable(*self.head, title=self.caption, box=style, title_justify="left")
        table.columns[0].no_wrap = True
        for column, *cells in zip(table.columns[1:], *(row[1:] for row in self.rows), strict=True):
            if any(cell.startswith(tuple("0123456789+-")) for cell in cells):
                column.justify = "right"
        for row in self.rows:
            table.add_row(*map(Text, row))
        return Group(table, Text(self.foot, "dim")) if self.foot else table


def results_table(result: Mapping[str, Any]) -> Table:
    """Mean ± sd of each loss and test metric of a `result.json`; below, one-sided p of t-tests paired by seed."""
    losses = result["losses"]
    metrics = list(losses["original"]["test"])
    n = len(losses["original"]["test"][metrics[0]]["values"])
    over = "one seed" if n == 1 else f"mean ± sd over {n} seeds"
    rows = [
        [LOSSES[kind], losses[kind]["name"], *(mean_sd(losses[kind]["test"][m]["values"]) for m in metrics)]
        for kind in LOSSES
        if kind in losses
    ]
    for reference, tests in result["tests"].items():
        better = f"better than {LOSSES[reference]}"
        rows.append(["p, paired by seed", better, *(p_value(tests[m]["p_one_sided"]) for m in metrics)])
    caption = f"Test data, {over} (n = {n}); kept: {result['kept']}"
    return Table(caption, ["loss", "name", *(f"test/{m}" for m in metrics)], rows)


def comparison_table(comparison: Comparison, condition: str, metric: str, *, markdown: bool = False) -> Table:
    """The losses under one condition by one metric, against the reference; as text or as Markdown."""
    rows = []
    for row in comparison.select(condition, metric):
        against = ["n/a"] * 5
        if row.loss == comparison.reference:
            against = ["reference", *[""] * 4]
        elif (told := row.verdict) is not None:
            interval = "n/a" if told.interval is None else " to ".join(map(signed, told.interval))
            tests = (told.p, told.p_two_sided, row.holm_two_sided)
            against = [signed(told.difference), interval, *map(p_value, tests)]
        rows.append([row.loss, str(row.n), mean_sd(row.values), *against])
    caption = f"{condition + ': ' if condition else ''}test/{metric} ({direction(metric)} is better)"
    head = ["loss", "n", "mean ± sd", "difference", "95 % interval", "p (better)", "p (two-sided)", "Holm"]
    return Table(caption, head, rows, markdown=markdown)


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
    rows = []
    for attack in report.attacks:
        zero = "-" if attack.zero_gradients is None else f"{attack.zero_gradients:.1%}"
        cells = [f"{value:.3f}" for value in attack.accuracy]
        rows.append([attack.name, *cells, f"{attack.forward:,}", f"{attack.backward:,}", zero])
    worst = [f"{value:.3f}" for value in report.worst_case]
    rows.append(["worst case", *worst, f"{report.forward:,}", f"{report.backward:,}", ""])
    caption = (
        f"Robust accuracy, {report.norm}, {counted(report.samples, 'image')}, clean accuracy "
        f"{report.clean_accuracy:.1%}, seed {report.seed}"
    )
    return Table(caption, ["attack", *(f"{e:g}" for e in report.epsilons), "forward", "backward", "zero"], rows)
