"""The strip plot of a comparison: every training a point."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from tglo_lightning.reporting.canvas import new_figure, save_figure
from tglo_lightning.reporting.comparison import Comparison, Row
from tglo_lightning.reporting.stats import LESS_IS_BETTER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The palette of Okabe and Ito
REFERENCE, GIVEN, FOUND = "#0072B2", "0.35", "#D55E00"
COLUMNS = 3


def plot_comparison(comparison: Comparison, path: str | Path, metric: str | None = None) -> Path:
    """Draw every value of every loss as a point, a panel for each condition, with the mean and its 95 % interval.

    Args:
        comparison: of :func:`tglo_lightning.reporting.comparison.compare`.
        path: file to write; its suffix chooses the format, and its folder is made if need be.
        metric: one of the comparison; the first by default.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no such metric, or a suffix that matplotlib cannot write.
    """
    metric = comparison.metrics[0] if metric is None else metric
    if metric not in comparison.metrics:
        raise ValueError(f"metric must be one of {', '.join(comparison.metrics)}, got {metric!r}")
    conditions = [c for c in comparison.conditions if comparison.select(c, metric)]
    # The same line means the same loss in every panel, best found losses at the bottom
    losses = list(dict.fromkeys(row.loss for row in comparison.rows if row.metric == metric))
    columns = 2 if len(conditions) == 4 else min(COLUMNS, len(conditions))
    lines = math.ceil(len(conditions) / columns)
    labels = 0.075 * max(map(len, losses))
    figure = new_figure(labels + 3.6 * columns + 0.6, (0.36 * len(losses) + 0.75) * lines + 0.85)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, condition in zip(panels.flat, conditions, strict=False):
        _panel(axes, comparison.select(condition, metric), losses, comparison.reference)
        axes.set_title(condition, loc="left", fontsize=9)
    for axes in panels.flat[len(conditions) :]:
        axes.set_visible(False)
    panels[0, 0].set_yticks(range(len(losses)), losses)
    for axes in panels[:, 0]:
        axes.tick_params(axis="y", labelsize=9)
    panels[0, 0].set_ylim(len(losses) - 0.4, -0.6)
    direction = "lower" if metric in LESS_IS_BETTER else "higher"
    figure.supxlabel(
        f"test/{metric} ({direction} is better); a point a {comparison.unit}, diamond: mean with its 95 % t-interval, "
        f"dotted: mean of {comparison.reference}",
        fontsize=8,
        wrap=True,
    )
    return save_figure(figure, path)


def _panel(axes: Axes, rows: list[Row], losses: list[str], reference: str) -> None:
    for row in rows:
        line = losses.index(row.loss)
        is_reference = row.loss == reference
        colour = REFERENCE if is_reference else GIVEN if row.kind == "original" else FOUND
        values = np.array([value for value in row.values if value is not None])
        # Spread evenly and in a fixed order: a picture of the same data is the same picture
        offsets = 0.22 * (np.arange(len(values)) * 0.618 % 1 - 0.5)
        axes.scatter(values, line + offsets, s=16, color=colour, alpha=0.55, linewidths=0, zorder=2)
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
            axes.axvline(row.mean, color=REFERENCE, linewidth=1, linestyle=":", zorder=1)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
