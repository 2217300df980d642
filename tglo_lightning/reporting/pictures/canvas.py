"""What all pictures share: matplotlib, loaded when one is drawn; one palette, one style; files, SVG and pixels."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Name: colour on white, colour on the dark background of the report
PALETTE = {
    "ink": ("#1b1e22", "#e7eaee"),
    "muted": ("#57606a", "#a3acb7"),
    "axis": ("#a5adb6", "#5a636e"),
    "grid": ("#e8eaed", "#2a3038"),
    "paper": ("#ffffff", "#191d23"),
    "blue": ("#0072b2", "#5db4ec"),
    "orange": ("#d55e00", "#ff9447"),
    "green": ("#008a66", "#35c594"),
    "purple": ("#a8468a", "#e08fc6"),
    "gold": ("#b07a00", "#e6b73c"),
    "sky": ("#2b96d1", "#8fd0ff"),
    "violet": ("#6b4fbb", "#b09cf5"),
    "grey": ("#7a7f86", "#a4adb6"),
    "red": ("#c1121f", "#ff6b6b"),
}
INK, MUTED, AXIS, GRID, PAPER, BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY, VIOLET, GREY, RED = (
    light for light, _ in PALETTE.values()
)
SERIES = tuple(light for light, _ in list(PALETTE.values())[5:13])
# What a loss pulls to zero training error, and what it pushes away
PULL, PUSH = GREEN, ORANGE
# Losses by their origin
ORIGINAL, METALEARNED = BLUE, ORANGE
KINDS = {"original": "blue", "tuned_original": "sky", "known": "purple", "metalearned": "orange"}
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*"
STYLE = Path(__file__).with_name("pictures.mplstyle")
WIDTH = 4.2  # inches: narrow, so that the text of the SVG stays readable on a phone
TITLE_CHARACTERS = 36  # of a line as wide as the axes
LABEL_CHARACTERS = 30  # of a line of a legend in two columns
VECTOR_POINTS = 400
DPI = 160
DARK = "@media (prefers-color-scheme: dark)"

P = ParamSpec("P")


def picture(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure: matplotlib must be there, and the common style is in force.

    The function sets the figure's label (``figure.set_label``) to a description in words, which reports show below.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        try:
            from matplotlib import rc_context
        except ImportError as error:
            raise ImportError("Drawing needs matplotlib: pip install 'tglo-lightning[plots]'") from error
        with rc_context(fname=STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure that belongs to no window, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_axes(height: float, title: str = "", ylabel: str = "", width: float = WIDTH) -> tuple[Figure, Axes]:
    """A new figure with one set of axes, its title in several lines if it is long."""
    figure = new_figure(height, width)
    return figure, figure.add_subplot(title=wrapped(title), ylabel=ylabel)


def wrapped(title: str) -> str:
    """A title in several lines if it is long."""
    return textwrap.fill(title, TITLE_CHARACTERS)


def draw_legend(figure: Figure, columns: int = 2) -> None:
    """Draw the legend of all axes below them, each label once, dots opaque and large enough to see."""
    from matplotlib.collections import PathCollection

    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(textwrap.fill(label, LABEL_CHARACTERS), handle)
    if not handles:
        return
    legend = figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns)
    for mark in legend.legend_handles:
        if isinstance(mark, PathCollection):
            mark.set(sizes=[24], alpha=1, rasterized=False)


def band(axes: Axes, x: Any, middle: Any, low: Any, high: Any, **style: Any) -> None:
    """Draw a line, and what lies between two others as a shade of its colour."""
    [line] = axes.plot(x, middle, **{"linewidth": 1.9} | style)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def integer_axis(axes: Axes, label: str, last: int | None = None) -> None:
    """Label the x axis, with ticks at whole numbers; ``last``: it shows 1 to ``last``, half a step more either side."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10], min_n_ticks=1))
    if last is not None:
        axes.set_xlim(0.5, last + 0.5)


def series(at: int) -> dict[str, Any]:
    """Colour, dashes and marker of the ``at``-th line of a picture."""
    style = {"color": SERIES[at % len(SERIES)], "linestyle": DASHES[at // len(SERIES) % len(DASHES)]}
    return style | {"marker": MARKERS[at % len(MARKERS)]}


def dots(axes: Axes, x: Sequence[float] | NDArray[Any], y: Sequence[float] | NDArray[Any], **style: Any) -> None:
    """Draw points; many of them as pixels, since an SVG of thousands of points is slow and large."""
    axes.scatter(x, y, linewidths=0, rasterized=len(x) > VECTOR_POINTS, **style)


def spread_out(index: Sequence[int] | NDArray[Any], count: int, width: float) -> NDArray[Any]:
    """A fixed offset for each of ``count`` points that share a place, in an interval of ``width`` about 0."""
    return width * ((np.asarray(index) + 0.5) / max(1, count) - 0.5)


def jitter(count: int, width: float) -> NDArray[Any]:
    """Offsets that keep points of equal value apart; the same at each call."""
    return width * (np.arange(count) * 0.618 % 1 - 0.5)


def finite(values: Sequence[float | None]) -> list[float]:
    """The values that can be drawn."""
    return [value for value in values if value is not None and math.isfinite(value)]


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of the suffix of ``path``; the folder is made if need be.

    An ``.svg`` is dark where its reader prefers that, everything else is on white.

    Raises:
        ValueError: a suffix that matplotlib cannot write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".svg":
        figure.savefig(path, dpi=DPI)
        return path
    light, dark = themes()
    style = f"<style>svg {{ background: var(--plot-paper); {light} }}\n{DARK} {{ svg {{ {dark} }} }}</style>"
    head, end, body = svg(figure).partition(">")
    path.write_text(f"{head}{end}\n{style}{body}", encoding="utf-8")
    return path


def themes() -> list[str]:
    """CSS that sets the variables of :func:`svg` for a light page and for a dark one."""
    return ["; ".join(f"--plot-{name}: {pair[i]}" for name, pair in PALETTE.items()) for i in (0, 1)]


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as an array of bytes, shape ``(height, width, 4)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element for an HTML page: scalable, text as text, the same at each call.

    Its colours are the CSS variables ``--plot-NAME`` of the names of ``PALETTE``, which the page must define; so it
    follows a page into the dark. The description is its accessible name.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": figure.get_label()}):
        figure.savefig(file, format="svg", transparent=True, dpi=100, metadata=nothing)
    text = "<svg" + file.getvalue().partition("<svg")[2]
    # Inside a page the style of one SVG, and its names of parts, would be those of all
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|\s*<defs>\s*</defs>", "", text, flags=re.S)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)
    for name, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--plot-{name})")
    text = re.sub(r"(font: [^'\"]*)'[^;\"]*", r"\1system-ui, sans-serif", text)
    [box] = re.findall(r'viewBox="[^"]*"', text)[:1]
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    text = f'<svg role="img" aria-label="{escape(str(figure.get_label()))}" {box} {names}{text[text.index(">") :]}'
    return re.sub(r"\s*\n\s*", "\n", text)
