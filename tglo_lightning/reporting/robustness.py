"""A robustness report as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from tglo_lightning.reporting.canvas import new_figure, save_figure
from tglo_lightning.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tglo_lightning.reporting.robustness_report import RobustnessReport

__all__ = ["plot_robustness", "plot_worst_cases", "robustness_table"]

# The palette of Okabe and Ito for the losses; the dashes tell attacks apart also without colour
COLOURS = {"own": "#D55E00", "cross_entropy": "#0072B2", "margin": "#009E73"}
GRADIENT_FREE, ENSEMBLE = "#CC79A7", "#E69F00"
SERIES = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73", "#CC79A7")
MARKERS = "osD^vP"
UNITS = {"linf": "$L_\\infty$", "l2": "$L_2$"}


def robustness_table(report: RobustnessReport) -> Table:
    """One row an attack, one column an epsilon, and the worst case over the attacks below.

    Passes are in images, forward and backward; the last column is the share of gradients that are exactly zero.
    """
    title = (
        f"Robust accuracy, {report.norm}, {counted(report.samples, 'image')}, clean accuracy "
        f"{report.clean_accuracy:.1%}, seed {report.seed}"
    )
    radii = (f"{epsilon:g}" for epsilon in report.epsilons)
    table = Table("attack", *radii, "forward", "backward", "zero", title=title)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == "attack" else "right"
    for attack in report.attacks:
        zero = "-" if attack.zero_gradients is None else f"{attack.zero_gradients:.1%}"
        cells = [f"{value:.3f}" for value in attack.accuracy]
        table.add_row(attack.name, *cells, f"{attack.forward:,}", f"{attack.backward:,}", zero)
    table.add_section()
    worst = [f"{value:.3f}" for value in report.worst_case]
    table.add_row("worst case", *worst, f"{report.forward:,}", f"{report.backward:,}", "")
    return table


def plot_robustness(report: RobustnessReport, path: str | Path) -> Path:
    """Draw accuracy over epsilon, one line an attack, and the worst case over them.

    Args:
        report: what to draw.
        path: file to write; its suffix chooses the format, and its folder is made if need be.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = _canvas(report.norm)
    known = {"iterated": "-", "single": "--"}
    for number, attack in enumerate(report.attacks):
        colour = COLOURS.get(str(attack.settings.get("loss")), "")
        if not colour:
            colour = ENSEMBLE if attack.knowledge == "ensemble" else GRADIENT_FREE
        axes.plot(
            report.epsilons,
            attack.accuracy,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linestyle=known["iterated" if attack.iterated else "single"],
            color=colour,
            linewidth=1.6,
            label=attack.name,
        )
    axes.plot(report.epsilons, report.worst_case, color="black", linewidth=3, alpha=0.55, label="worst case")
    axes.axhline(report.clean_accuracy, color="0.4", linewidth=1, linestyle=":", label="clean")
    doubts = f"; warnings: {len(report.findings)}" if report.findings else ""
    axes.set_title(f"{counted(report.samples, 'image')}{doubts}", loc="left")
    figure.legend(loc="outside right upper", frameon=False)
    return save_figure(figure, path)


def plot_worst_cases(
    series: Mapping[str, tuple[list[float], list[list[float]]]], path: str | Path, *, norm: str, title: str = ""
) -> Path:
    """Draw several networks' accuracy over epsilon in one axis: mean over seeds, and the span from least to greatest.

    Args:
        series: for each name the epsilons, and one list of accuracies a seed.
        path: file to write.
        norm: ``"linf"`` or ``"l2"``.
        title: of the picture.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = _canvas(norm)
    for number, (name, (epsilons, rows)) in enumerate(series.items()):
        colour, columns = SERIES[number % len(SERIES)], list(zip(*rows, strict=True))
        mean = [sum(column) / len(column) for column in columns]
        axes.plot(epsilons, mean, marker=MARKERS[number % len(MARKERS)], color=colour, linewidth=1.8, label=name)
        axes.fill_between(
            epsilons, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.15, linewidth=0
        )
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    return save_figure(figure, path)


def _canvas(norm: str) -> tuple[Figure, Axes]:
    figure = new_figure(8.4, 4.6)
    axes = figure.add_subplot()
    axes.set_xlabel(f"epsilon, radius of the ball around an image in {UNITS[norm]}, units of pixels")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.9", linewidth=0.6)
    return figure, axes
