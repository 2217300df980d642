"""Accuracy under attack."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from tglo_lightning.reporting.numbers import NORMS, percent
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture
from tglo_lightning.reporting.robustness import RobustnessReport
from tglo_lightning.wording import counted


@picture
def robustness(report: RobustnessReport, title: str = "Accuracy under attack") -> canvas.Figure:
    """Accuracy over epsilon, one line an attack (dashed: a single step), and the worst case over them."""
    figure, axes = _axes(3.6 + 0.2 * ((len(report.attacks) + 3) // 2), canvas.WIDTH, title, report.norm)
    for at, attack in enumerate(report.attacks):
        style = canvas.series(at) | {"linestyle": "-" if attack.iterated else "--", "label": attack.name}
        axes.plot(report.epsilons, attack.accuracy, **style, markersize=5, linewidth=1.6)
    axes.plot(report.epsilons, report.worst_case, color=canvas.INK, linewidth=3, label="worst case")
    axes.axhline(report.clean_accuracy, color=canvas.MUTED, linewidth=1.2, linestyle=":", label="without attack")
    canvas.draw_legend(figure)
    figure.set_label(
        f"{percent(report.clean_accuracy)} of {counted(report.samples, 'image')} are classified correctly without an "
        f"attack, {percent(report.worst_case[-1])} in the worst case over {counted(len(report.attacks), 'attack')} at "
        f"ε = {report.epsilons[-1]:g}. Reasons for doubt: {len(report.findings) or 'none'}."
    )
    return figure


@picture
def worst_cases(
    series: Mapping[str, tuple[list[float], list[list[float]]]], *, norm: str, title: str = ""
) -> canvas.Figure:
    """Several networks' accuracy over epsilon in one axis: mean over seeds, and the span from least to greatest.

    ``series`` holds, for each name, the epsilons and one list of accuracies a seed.
    """
    figure, axes = _axes(4.2, 6.4, title, norm)
    for at, (name, (epsilons, rows)) in enumerate(series.items()):
        middle, low, high = ([pick(column) for column in zip(*rows, strict=True)] for pick in (fmean, min, max))
        canvas.band(axes, epsilons, middle, low, high, label=name, **canvas.series(at))
    canvas.draw_legend(figure)
    figure.set_label(f"{title}: accuracy over the radius of the attack, for {', '.join(series)}.")
    return figure


def _axes(height: float, width: float, title: str, norm: str) -> tuple[canvas.Figure, canvas.Axes]:
    figure, axes = canvas.new_axes(height, title, "accuracy", width)
    axes.set(xlabel=f"ε, {NORMS.get(norm, norm)} radius in units of pixels", ylim=(-0.02, 1.02))
    return figure, axes
