"""A race: the curves of all networks that trained side by side."""

from __future__ import annotations

from typing import Any

from tglo_lightning.reporting.numbers import number
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture
from tglo_lightning.reporting.results import measure
from tglo_lightning.search.result import SearchResult

# Of members that are neither the module's own loss nor the winner: together they repeat after 24
COLOURS = (canvas.GREEN, canvas.PURPLE, canvas.GOLD, canvas.RED, canvas.INK, canvas.SKY, canvas.VIOLET, canvas.GREY)
DASHES = ("-", ":", "-.")


@picture
def race(search: SearchResult) -> canvas.Figure:
    """The metric of every network at every check; the winner thick, with a dot where its weights come from.

    Raises:
        ValueError: the result is not that of a race.
    """
    curves = search.curves
    if curves is None:
        raise ValueError("Nothing to draw: this was no race.")
    figure, axes = canvas.new_axes(4.2, "Networks side by side", measure(search))
    names = curves.names(search.original.name)
    others = [i for i, c in enumerate(curves.criteria) if i != curves.winner and not c.is_original]
    for index, values in enumerate(curves.values):
        at = others.index(index) if index in others else 0
        style: dict[str, Any] = {"color": COLOURS[at % len(COLOURS)], "linestyle": DASHES[at % len(DASHES)]}
        style |= {"marker": canvas.MARKERS[at % len(canvas.MARKERS)], "markersize": 3, "linewidth": 1.2}
        if index == curves.winner:
            style = {"color": canvas.METALEARNED, "linewidth": 3, "zorder": 3}
        elif index not in others:
            style = {"color": canvas.ORIGINAL, "linestyle": "--", "linewidth": 1.8}
        axes.plot(curves.checks, values, label=names[index], **style)
    peak = curves.values[curves.winner][curves.checks.index(curves.kept_at)]
    axes.plot([curves.kept_at], [peak], "o", color=canvas.INK, markersize=7, zorder=4, label="kept network")
    canvas.integer_axis(axes, curves.unit)
    canvas.draw_legend(figure)
    best = max if search.mode == "max" else min
    own = [v for c, row in zip(curves.criteria, curves.values, strict=True) if c.is_original for v in row]
    finite = canvas.finite(own)
    against = f"; the best of {search.original.name} was {number(best(finite), 4)}" if finite else ""
    figure.set_label(
        f"The network of {names[curves.winner]} is kept, with {search.monitor} {number(peak, 4)} after "
        f"{curves.kept_at} of {curves.checks[-1]} {curves.unit}{against}. One network each, chosen by validation."
    )
    return figure
