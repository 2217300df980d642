"""The landscape around trained networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tglo_lightning.reporting.landscape import Landscape
from tglo_lightning.reporting.numbers import number
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture
from tglo_lightning.wording import counted


@picture
def basins(landscapes: Mapping[str, Landscape]) -> canvas.Figure:
    """Accuracy and cross-entropy along the directions, all networks in one axis: mean, and one deviation about it.

    Raises:
        ValueError: nothing to draw.
    """
    if not landscapes:
        raise ValueError("Nothing to draw: there are no landscapes.")
    figure = canvas.new_figure(4.2, 9.0)
    left, right = figure.subplots(1, 2)
    for at, (name, landscape) in enumerate(landscapes.items()):
        style = canvas.series(at) | {"marker": "", "label": name}
        for axes, values in ((left, landscape.accuracy), (right, landscape.cross_entropy.clamp(min=1e-4).log10())):
            mean = values.mean(0)
            spread = values.std(0) if len(values) > 1 else torch.zeros_like(mean)
            centre, low, high = (10**line if axes is right else line for line in (mean, mean - spread, mean + spread))
            canvas.band(axes, landscape.steps, centre, low, high, **style)
    left.set(ylabel="accuracy", ylim=(-0.02, 1.02))
    right.set(ylabel="cross-entropy (nats)", yscale="log")
    for axes in (left, right):
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("step along a filter-normalised direction\n(1 = each filter moved by its own length)")
    first = next(iter(landscapes.values()))
    left.set_title(f"{counted(len(first.accuracy), 'direction')}, {counted(first.samples, 'image')}")
    canvas.draw_legend(figure, 4)
    widths = (f"{number(landscape.width()[0])} with {name}" for name, landscape in landscapes.items())
    figure.set_label(f"The step at which accuracy falls to 90 % of its own is {', '.join(widths)}.")
    return figure


@picture
def surfaces(landscapes: Mapping[str, Landscape]) -> canvas.Figure:
    """Accuracy over the plane of two directions, one panel a network that has such a surface, one scale of colours.

    Raises:
        ValueError: nothing to draw.
    """
    shown = {name: landscape for name, landscape in landscapes.items() if len(landscape.surface_steps)}
    if not shown:
        raise ValueError("Nothing to draw: no landscape has a surface.")
    figure = canvas.new_figure(3.6, 1.2 + 3.3 * len(shown))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, landscape) in zip(panels, shown.items(), strict=True):
        steps, accuracy = landscape.surface_steps, landscape.surface_accuracy
        filled = axes.contourf(steps, steps, accuracy, levels=[i / 20 for i in range(21)], cmap="viridis")
        axes.contour(steps, steps, accuracy, levels=[0.5, 0.9], colors="white", linewidths=1.0)
        axes.plot([0], [0], "+", color="white", markersize=9)
        axes.set(title=name, aspect="equal", xlabel="second direction")
    panels[0].set_ylabel("first direction")
    figure.colorbar(filled, ax=list(panels), label="accuracy (white: 0.5, 0.9)")
    figure.set_label(f"Accuracy over the plane of two directions around {', '.join(shown)}.")
    return figure
