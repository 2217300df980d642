"""Attraction and confidence of training samples over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.numbers import number, percent
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture
from tglo_lightning.wording import counted

POINTS = 2500
SETTLES = "predicted equilibrium, 1 − ε*"


@picture
def attraction(records: Mapping[str, AttractionRecord], unit: str = "epochs") -> canvas.Figure:
    """Attraction, and below it confidence, of samples over the epochs; one column a record.

    Above, the velocity of the true class's logit: the loss pulls points over 0 to zero training error and pushes points
    under 0 away. Below, confidence ``h_T = 1 - eps`` with the loss's predicted equilibrium ``1 - eps*``, if it has one.
    Each column has an attraction axis of its own: a factor of the loss is only a learning rate. Of a long record every
    so many samples are drawn, the same at each epoch; median and description are those of all. The ``unit`` of the
    measurements is ``"epochs"`` or ``"steps"``.

    Raises:
        ValueError: nothing to draw.
    """
    if not records or not all(record.epochs for record in records.values()):
        raise ValueError("Nothing to draw: every record must hold a measurement.")
    figure = canvas.new_figure(5.4, max(canvas.WIDTH, 0.8 + 3.4 * len(records)))
    axes = figure.subplots(2, len(records), sharex="col", squeeze=False)
    for (title, record), (above, below) in zip(records.items(), axes.T, strict=True):
        pulls, confidence = record.quantity("attraction"), 1 - record.quantity("eps")
        for axis, heights in ((above, pulls), (below, confidence)):
            _samples(axis, record, heights)
        above.axhline(0, color=canvas.INK, linewidth=0.8)
        for eps in record.equilibria[-1]:
            below.axhline(1 - eps, color=canvas.INK, linestyle="--", linewidth=1.4, label=SETTLES)
        below.axhline(1 / record.num_classes, color=canvas.MUTED, linestyle=":", linewidth=1.4, label="chance")
        # All of [0, 1], unless the samples keep to a small part of it
        if np.nanmax(confidence) - np.nanmin(confidence) > 0.3:
            below.set_ylim(-0.03, 1.03)
        above.set_title(canvas.wrapped(title))
        canvas.integer_axis(below, f"{unit} trained")
    axes[0, 0].set_ylabel("attraction (logit velocity)")
    axes[1, 0].set_ylabel("confidence in the true class")
    canvas.draw_legend(figure, 3 if len(records) > 1 else 2)
    figure.set_label(
        " ".join(f"Attraction, {title}: {_description(record, unit)}" for title, record in records.items())
    )
    return figure


def _description(record: AttractionRecord, unit: str) -> str:
    pulls, confidence = record.quantity("attraction"), 1 - record.quantity("eps")
    last = pulls[-1][~np.isnan(pulls[-1])]
    if not last.size:
        return "the loss ignores all samples."
    settles = ", ".join(number(1 - eps) for eps in record.equilibria[-1])
    return (
        f"after {counted(record.epochs[-1], unit[:-1])} the loss pushes {percent(float(np.mean(last < 0)))} of "
        f"{counted(len(record.index), 'sample')} away from zero training error; the median attraction is "
        f"{number(float(np.median(last)))}. The median confidence in the true class goes from "
        f"{number(float(np.nanmedian(confidence[0])))} to {number(float(np.nanmedian(confidence[-1])))}; "
        + (f"the theory predicts an equilibrium at {settles}." if settles else "the theory predicts no equilibrium.")
    )


def _samples(axis: canvas.Axes, record: AttractionRecord, heights: NDArray[np.float32]) -> None:
    """One point a sample and measurement, coloured by the sign of its attraction; and the median."""
    pulls = record.quantity("attraction")
    shown = np.arange(0, pulls.shape[1], -(-pulls.size // POINTS))
    epochs = np.asarray(record.epochs, float)
    gap = np.diff(epochs).min() if len(epochs) > 1 else 1.0
    places = epochs[:, None] + canvas.spread_out(shown, pulls.shape[1], 0.7 * gap)
    pulls, drawn = pulls[:, shown], heights[:, shown]
    for colour, label, where in ((canvas.PULL, "pulled in", pulls >= 0), (canvas.PUSH, "pushed away", pulls < 0)):
        canvas.dots(axis, places[where], drawn[where], s=4, c=colour, alpha=0.4, label=label)
    style: dict[str, Any] = {"color": canvas.INK, "linewidth": 1.8, "marker": "D" if len(epochs) == 1 else ""}
    axis.plot(record.epochs, np.nanmedian(heights, axis=1), label="median", **style)
