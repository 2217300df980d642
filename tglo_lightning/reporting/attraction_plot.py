"""Pictures of an attraction record: one point a sample and measurement."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tglo_lightning.reporting.attraction_record import AttractionRecord
from tglo_lightning.reporting.canvas import PULL, PUSH, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["attraction_figure", "interactive_attraction", "plot_attraction"]

INTERACTIVE_POINTS = 20_000


def plot_attraction(records: Mapping[str, AttractionRecord], path: str | Path) -> Path:
    """Draw :func:`attraction_figure` into a file.

    Args:
        records: what to draw, by title.
        path: file to write; its suffix chooses the format, and its folder is made if need be.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing to draw.
    """
    return save_figure(attraction_figure(records), path)


def attraction_figure(records: Mapping[str, AttractionRecord]) -> Figure:
    """Attraction, and below it confidence, of every sample over the epochs; one column a record.

    Above, points over 0 are samples that the loss pulls to zero training error, points under 0 samples that it pushes
    away; beside the axis stands the share of the latter at the end. Below, ``h_T = 1 - eps`` with the loss's predicted
    equilibrium ``1 - eps*``, where it has one. Each column has an attraction axis of its own: a factor of the loss is
    only a learning rate.

    Args:
        records: what to draw, by title.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing to draw.
    """
    if not records or not all(record.epochs for record in records.values()):
        raise ValueError("Nothing to draw: every record must hold a measurement.")
    figure = new_figure(1.6 + 4.6 * len(records), 6.4, dpi=100)
    from matplotlib.collections import PathCollection
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots(2, len(records), sharex="col", squeeze=False)
    for column, (title, record) in enumerate(records.items()):
        _draw_attraction(axes[0, column], record)
        _draw_confidence(axes[1, column], record)
        axes[0, column].set_title(title, loc="left", pad=18)  # above the note on the right
        axes[1, column].set_xlabel("epochs trained")
        axes[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("attraction to zero training error\n(velocity of the true class's logit)")
    axes[1, 0].set_ylabel("$h_T = 1 - \\epsilon$, confidence in the true class")
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(5, len(handles)), frameon=False
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([30])
            handle.set_alpha(1)
    return figure


def _draw_attraction(axis: Axes, record: AttractionRecord) -> None:
    pulls = record.quantity("attraction")
    _scatter(axis, record, pulls)
    axis.axhline(0, color="black", linewidth=0.8)
    _middle(axis, record, pulls)
    last = pulls[-1][~np.isnan(pulls[-1])]
    axis.annotate(
        f"{np.mean(last < 0) if last.size else 0:.0%} pushed away at the end",
        (1, 1),
        xycoords="axes fraction",
        ha="right",
        va="bottom",
        color=PUSH,
        fontsize=9,
    )


def _draw_confidence(axis: Axes, record: AttractionRecord) -> None:
    confidence = 1 - record.quantity("eps")
    _scatter(axis, record, confidence)
    _middle(axis, record, confidence)
    for eps in record.equilibria[-1]:
        axis.axhline(1 - eps, color="black", linestyle="--", linewidth=1.4, label=r"predicted rest, $1 - \epsilon^*$")
        axis.annotate(
            f"{1 - eps:.3f}",
            (1, 1 - eps),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    if not record.equilibria[-1]:
        axis.annotate(
            "the theory predicts no rest below $h_T = 1$",
            (1, 1),
            xycoords="axes fraction",
            ha="right",
            va="bottom",
            color="0.35",
            fontsize=9,
        )
    axis.axhline(1 / record.num_classes, color="0.45", linestyle=":", linewidth=1.2, label="chance, $1/n$")
    # All of [0, 1], unless the samples keep to a small part of it
    if np.nanmax(confidence) - np.nanmin(confidence) > 0.3:
        axis.set_ylim(-0.03, 1.03)


def _scatter(axis: Axes, record: AttractionRecord, heights: NDArray[np.float32]) -> None:
    """One point a sample and measurement, coloured by the sign of its attraction, spread a little in width."""
    pulls = record.quantity("attraction")
    epochs = np.asarray(record.epochs, float)
    gap = np.diff(epochs).min() if len(epochs) > 1 else 1.0
    # A fixed place for each sample, so that points do not hide each other
    places = epochs[:, None] + 0.7 * gap * (np.arange(heights.shape[1]) / heights.shape[1] - 0.5)
    for colour, label, where in ((PULL, "pulled in", pulls >= 0), (PUSH, "pushed away", pulls < 0)):
        axis.scatter(places[where], heights[where], s=2.5, c=colour, alpha=0.35, linewidths=0, label=label)


def _middle(axis: Axes, record: AttractionRecord, heights: NDArray[np.float32]) -> None:
    axis.plot(record.epochs, np.nanmedian(heights, axis=1), color="black", linewidth=1.8, label="median")
    axis.grid(axis="y", color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)


def interactive_attraction(record: AttractionRecord) -> Any:
    """The scatter of the attraction over the epochs as a Plotly figure; a point tells its sample.

    Of a long record every so many samples are drawn, the same at each epoch, at most some 20,000 points in all.

    Args:
        record: what to draw.

    Returns:
        A ``plotly.graph_objects.Figure``.

    Raises:
        ImportError: plotly is not installed.
        ValueError: nothing to draw.
    """
    try:
        import plotly.graph_objects as plotly
    except ImportError as error:
        raise ImportError("The interactive picture needs plotly: pip install 'tglo-lightning[plots]'") from error
    if not record.epochs:
        raise ValueError("Nothing to draw: the record must hold a measurement.")
    pulls = record.quantity("attraction")
    every = -(-pulls.size // INTERACTIVE_POINTS)
    shown = slice(None, None, every)
    pulls, confidence = pulls[:, shown], 1 - record.quantity("eps")[:, shown]
    epochs = np.repeat(record.epochs, pulls.shape[1])
    notes = np.column_stack(
        [np.tile(record.index.numpy()[shown], len(pulls)), np.tile(record.target.numpy()[shown], len(pulls))]
    )
    figure = plotly.Figure()
    for name, colour, where in (("pulled in", PULL, pulls >= 0), ("pushed away", PUSH, pulls < 0)):
        chosen = where.ravel()
        figure.add_scattergl(
            x=epochs[chosen].tolist(),
            y=pulls.ravel()[chosen].tolist(),
            customdata=[
                [sample, label, h]
                for (sample, label), h in zip(notes[chosen].tolist(), confidence.ravel()[chosen].tolist(), strict=True)
            ],
            name=name,
            mode="markers",
            marker={"size": 4, "opacity": 0.5, "color": colour},
            hovertemplate="epoch %{x}<br>attraction %{y:.4g}<br>sample %{customdata[0]}, class %{customdata[1]}"
            "<br>confidence %{customdata[2]:.4f}<extra></extra>",
        )
    figure.update_layout(
        template="plotly_white",
        xaxis_title="epochs trained",
        yaxis_title="attraction to zero training error (velocity of the true class's logit)",
    )
    return figure
