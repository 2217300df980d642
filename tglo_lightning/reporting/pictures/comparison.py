"""The strip plot of a comparison: every training a point."""

from __future__ import annotations

import math

from scipy.stats import t as student

from tglo_lightning.reporting.comparison import Comparison, Row
from tglo_lightning.reporting.numbers import direction, mean_sd
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture

COLUMNS = 3


@picture
def comparison(comparison: Comparison, metric: str | None = None) -> canvas.Figure:
    """Every value of every loss as a point, a panel for each condition, with the mean and its 95 % interval.

    Raises:
        ValueError: no such metric; by default it is the first of the comparison.
    """
    metric = comparison.metrics[0] if metric is None else metric
    if metric not in comparison.metrics:
        raise ValueError(f"metric must be one of {', '.join(comparison.metrics)}, got {metric!r}")
    conditions = [c for c in comparison.conditions if comparison.select(c, metric)]
    # The same line means the same loss in every panel, best found losses at the bottom
    losses = list(dict.fromkeys(row.loss for row in comparison.rows if row.metric == metric))
    columns = 2 if len(conditions) == 4 else min(COLUMNS, len(conditions))
    lines = math.ceil(len(conditions) / columns)
    width = 0.075 * max(map(len, losses)) + 3.6 * columns + 0.6
    figure = canvas.new_figure((0.36 * len(losses) + 0.75) * lines + 0.85, max(canvas.WIDTH, width))
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, condition in zip(panels.flat, conditions, strict=False):
        _panel(axes, comparison.select(condition, metric), losses, comparison.reference)
        axes.set_title(condition, fontsize=9)
    for axes in panels.flat[len(conditions) :]:
        axes.set_visible(False)
    panels[0, 0].set_yticks(range(len(losses)), losses)
    panels[0, 0].set_ylim(len(losses) - 0.4, -0.6)
    figure.supxlabel(
        f"test/{metric} ({direction(metric)} is better); a point a {comparison.unit}, diamond: mean with its 95 % "
        f"t-interval, dotted: mean of {comparison.reference}",
        fontsize=8,
        wrap=True,
    )
    told = []
    for condition in conditions:
        means = "; ".join(f"{row.loss} {mean_sd(row.values)}" for row in comparison.select(condition, metric))
        told.append(f"test/{metric}{f' with {condition}' if condition else ''}: {means}.")
    figure.set_label(" ".join(told))
    return figure


def _panel(axes: canvas.Axes, rows: list[Row], losses: list[str], reference: str) -> None:
    for row in rows:
        line = losses.index(row.loss)
        is_reference = row.loss == reference
        colour = canvas.MUTED if row.kind == "original" else canvas.PALETTE[canvas.KINDS.get(row.kind, "orange")][0]
        colour = canvas.ORIGINAL if is_reference else colour
        values = canvas.finite(row.values)
        canvas.dots(axes, values, line + canvas.jitter(len(values), 0.22), s=16, color=colour, alpha=0.55, zorder=2)
        if len(values) < len(row.values):
            text = f"{len(row.values) - len(values)} not finite"
            axes.text(0.99, line, text, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=7)
        if row.mean is None:
            continue
        if row.std is not None and row.n > 2:  # from two values it would be wider than the picture
            half = float(student.ppf(0.975, row.n - 1)) * row.std / math.sqrt(row.n)
            axes.plot([row.mean - half, row.mean + half], [line + 0.3] * 2, color=colour, linewidth=1.6, zorder=3)
        axes.plot([row.mean], [line + 0.3], "D", color=colour, markersize=4.5, zorder=4)
        if is_reference:
            axes.axvline(row.mean, color=canvas.ORIGINAL, linewidth=1, linestyle=":", zorder=1)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
