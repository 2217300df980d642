"""Training and validation over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from tglo_lightning.reporting.numbers import number
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture

Curves = Mapping[str, Sequence[Mapping[str, Sequence[float | None]]]]
"""``{loss: [{metric: [one value an epoch]} a seed]}``; None where one is not finite."""


@picture
def curves(recorded: Curves, metric: str, names: Mapping[str, str] | None = None) -> canvas.Figure:
    """One metric over the epochs, a line a loss: mean and, about it, one standard deviation over the seeds.

    Losses without the metric are left out; ``names`` says what to call the others, by their kind.
    """
    figure, axes = canvas.new_axes(3.2, metric, metric)
    changes = []
    for kind, seeds in recorded.items():
        rows = [seed[metric] for seed in seeds if metric in seed]
        if not rows:
            continue
        name = (names or {}).get(kind, kind)
        colour = canvas.PALETTE[canvas.KINDS[kind]][0] if kind in canvas.KINDS else canvas.INK
        # The epochs in which all seeds came to a finite value
        columns = {epoch: each for epoch, each in enumerate(zip(*rows, strict=False), start=1) if None not in each}
        epochs, means = list(columns), [fmean(column) for column in columns.values()]
        dashes = {"original": "--", "tuned_original": "-.", "known": ":"}.get(kind, "-")
        style = {"linestyle": dashes} if len(epochs) > 1 else {"marker": "o"}
        spreads = [stdev(column) if len(rows) > 1 else 0.0 for column in columns.values()]
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        canvas.band(axes, epochs, means, low, high, color=colour, label=name, **style)
        if means:
            changes.append(f"{name} goes from {number(means[0])} to {number(means[-1])}")
    [first, *others] = axes.get_legend_handles_labels()[1] or [metric]
    if others:
        canvas.draw_legend(figure)
    else:
        axes.set_title(canvas.wrapped(f"{metric}, {first}"))
    canvas.integer_axis(axes, "epoch")
    figure.set_label(f"{metric} over the epochs: {'; '.join(changes) or 'no finite value'}.")
    return figure
