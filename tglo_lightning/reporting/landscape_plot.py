"""Pictures of the landscape around trained networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tglo_lightning.reporting.canvas import new_figure, save_figure
from tglo_lightning.reporting.landscape import Landscape
from tglo_lightning.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_basins", "plot_surfaces"]

# The palette of Okabe and Ito
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")


def plot_basins(landscapes: Mapping[str, Landscape], path: str | Path) -> Path:
    """Draw accuracy and cross-entropy along the directions, all networks in one axis: mean, and one deviation about it.

    Args:
        landscapes: what to draw, by name.
        path: file to write; its suffix chooses the format, and its folder is made if need be.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing to draw.
    """
    figure = _figure(landscapes, (11.0, 4.4))
    left, right = figure.subplots(1, 2)
    for number, (name, landscape) in enumerate(landscapes.items()):
        style: dict[str, Any] = {
            "color": SERIES[number % len(SERIES)],
            "linestyle": DASHES[number // len(SERIES) % len(DASHES)],
        }
        for axes, values in ((left, landscape.accuracy), (right, landscape.cross_entropy.clamp(min=1e-4).log10())):
            mean = values.mean(0)
            spread = values.std(0) if len(values) > 1 else torch.zeros_like(mean)
            lines = (mean, mean - spread, mean + spread)
            centre, low, high = (10**line if axes is right else line for line in lines)
            axes.plot(landscape.steps, centre, linewidth=1.9, label=name, **style)
            axes.fill_between(landscape.steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    left.set_ylabel("accuracy")
    left.set_ylim(-0.02, 1.02)
    right.set_yscale("log")
    right.set_ylabel("cross-entropy (nats)")
    for axes in (left, right):
        axes.set_xlabel("step along a filter-normalised direction\n(1 = each filter moved by its own length)")
        axes.grid(color="0.9", linewidth=0.6)
    first = next(iter(landscapes.values()))
    left.set_title(f"{counted(len(first.accuracy), 'direction')}, {counted(first.samples, 'image')}", loc="left")
    left.legend(frameon=False)
    return save_figure(figure, path)


def plot_surfaces(landscapes: Mapping[str, Landscape], path: str | Path) -> Path:
    """Draw accuracy over the plane of two directions, one panel a network, one scale of colours.

    Args:
        landscapes: what to draw, by name; those without a surface are left out.
        path: file to write.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing to draw.
    """
    shown = {name: landscape for name, landscape in landscapes.items() if len(landscape.surface_steps)}
    figure = _figure(shown, (1.2 + 3.5 * len(shown), 3.9))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, landscape) in zip(panels, shown.items(), strict=True):
        steps = landscape.surface_steps
        filled = axes.contourf(
            steps, steps, landscape.surface_accuracy, levels=[i / 20 for i in range(21)], cmap="viridis"
        )
        axes.contour(steps, steps, landscape.surface_accuracy, levels=[0.5, 0.9], colors="white", linewidths=1.0)
        axes.plot([0], [0], "+", color="white", markersize=9)
        axes.set_title(name, loc="left")
        axes.set_aspect("equal")
        axes.set_xlabel("second direction")
    panels[0].set_ylabel("first direction")
    figure.colorbar(filled, ax=list(panels), label="accuracy (white: 0.5, 0.9)")
    return save_figure(figure, path)


def _figure(landscapes: Mapping[str, Landscape], size: tuple[float, float]) -> Figure:
    if not landscapes:
        raise ValueError("Nothing to draw: there are no landscapes.")
    return new_figure(*size)
