"""An explanation: where a loss pulls, where it pushes, where samples settle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tglo_lightning.reporting.numbers import number
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture
from tglo_lightning.theory import attraction_curve, equilibria
from tglo_lightning.theory.explanation import Explanation
from tglo_lightning.theory.subject import LossLike

# The dashes tell them apart also without colour
REFERENCES: dict[str, tuple[LossLike, str, Any]] = {
    "cross-entropy": ("cross_entropy", canvas.BLUE, "--"),
    "squared error": ("brier", canvas.PURPLE, "-."),
    "Baikal": ("baikal", canvas.GOLD, (0, (3, 1, 1, 1, 1, 1))),
}
EPS = np.concatenate([np.geomspace(1e-4, 0.01, 40), np.linspace(0.01, 0.99, 393), 1 - np.geomspace(0.01, 1e-4, 40)])
EPS = np.unique(EPS)


@picture
def explanation(explanation: Explanation, original: nn.CrossEntropyLoss | None = None) -> canvas.Figure:
    """``D(eps)`` of a loss over ``eps``, with the regimes shaded, beside cross-entropy, squared error and Baikal.

    Losses differ in scale by orders of magnitude, and a factor is only a learning rate: each curve is divided by its
    own size at the null epoch, so that all trainable losses meet there at 1. ``original`` is cross-entropy as the
    module uses it, with its smoothing, in place of the plain one.
    """
    n, own = explanation.num_classes, scaled_curve(explanation.loss, explanation.num_classes)
    title = f"D(ε) of the {explanation.name}, {n} classes"
    figure, axes = canvas.new_axes(4.6, title, "D(ε), scaled to ±1 at the null epoch")
    regimes = _regimes(own)
    references = REFERENCES
    if original is not None and original.label_smoothing:
        smoothed = f"cross-entropy, smoothing {original.label_smoothing:g}"
        references = {smoothed: (original, canvas.BLUE, "--")} | REFERENCES
        del references["cross-entropy"]
    for sign, colour, label in ((1, canvas.PULL, "pulls to zero error"), (-1, canvas.PUSH, "pushes away from it")):
        for at, (_, start, stop) in enumerate(regime for regime in regimes if regime[0] == sign):
            axes.axvspan(start, stop, color=colour, alpha=0.14, linewidth=0, label="" if at else label)
    axes.axhline(0, color=canvas.AXIS, linewidth=0.8)
    chance = (n - 1) / n
    axes.axvline(chance, color=canvas.AXIS, linewidth=1, linestyle=":")
    hollow: dict[str, Any] = {"markersize": 7, "markerfacecolor": canvas.PAPER}
    for label, (name, colour, dashes) in references.items():
        axes.plot(EPS, scaled_curve(name, n), color=colour, linestyle=dashes, linewidth=1.6, label=label)
        others = equilibria(name, n)
        axes.plot(others, np.zeros(len(others)), "o", markeredgecolor=colour, **hollow)
    axes.plot(EPS, own, color=canvas.INK, linewidth=2.6, label="this loss")
    settles = [eps for eps, *_ in explanation.equilibria]
    for eps in settles:
        axes.axvline(eps, color=canvas.INK, linewidth=1)
        axes.plot([eps], [0], "o", color=canvas.INK, markersize=8, label=f"settles at ε* = {eps:.3f}")
    axes.plot([], [], "o", markeredgecolor=canvas.MUTED, label="another settles", **hollow)
    _scale(axes, own)
    axes.set_xlim(0, 1)
    axes.set_xlabel("ε = 1 − confidence in the true class")
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "xytext": (-5, 0)}
    axes.annotate("null epoch", (chance, 0.02), **place, ha="right", color=canvas.MUTED, fontsize=9)
    canvas.draw_legend(figure)
    pulls = ", ".join(
        f"{'pulls towards' if sign > 0 else 'pushes away from'} zero training error for ε from {number(start, 2)} to "
        f"{number(stop, 2)}"
        for sign, start, stop in regimes
    )
    where = ", ".join(f"at ε* = {number(eps)} (confidence {number(1 - eps)})" for eps in settles) or "nowhere"
    trained = {"yes": "is trainable", "no": "cannot be trained", "doubtful": "is doubtful to train"}
    figure.set_label(
        f"The loss {trained[explanation.trains]}; it {pulls}. Samples settle {where}. Cross-entropy without "
        "smoothing pulls towards zero training error everywhere and settles nowhere."
    )
    return figure


def scaled_curve(loss: LossLike, n: int) -> NDArray[np.float64]:
    """``D(EPS)`` over ``|D((n - 1)/n)|``; over its greatest size where that is zero."""
    curve: NDArray[np.float64] = attraction_curve(loss, n, EPS.tolist()).detach().double().cpu().numpy()
    null = abs(float(attraction_curve(loss, n, (n - 1) / n)))
    scale = null if null > 1e-12 * np.abs(curve).max() else np.abs(curve).max()
    return curve / scale if scale > 0 else curve


def _regimes(own: NDArray[np.float64]) -> list[tuple[int, float, float]]:
    """Where a curve is above or below zero: sign, from, to."""
    signs = np.sign(own).astype(int)
    cuts = [0, *(np.flatnonzero(np.diff(signs)) + 1).tolist()]
    edges = [0.0, *((EPS[cut - 1] + EPS[cut]) / 2 for cut in cuts[1:]), 1.0]
    return [(int(signs[cut]), float(edges[i]), float(edges[i + 1])) for i, cut in enumerate(cuts) if signs[cut]]


def _scale(axes: canvas.Axes, own: NDArray[np.float64]) -> None:
    """Make the axis linear about 0 and logarithmic far from it: high enough for this loss, not for infinities."""
    inner = own[(EPS > 0.01) & (EPS < 0.99)]
    low, high = max(min(1.3 * inner.min(), -3.0), -1e5), min(max(1.3 * inner.max(), 10.0), 1e5)
    sizes = [0.5, 1, 2, 5, 10, 100, 1e3, 1e4, 1e5]
    ticks = [tick for tick in (*(-size for size in sizes), 0.0, *sizes) if low <= tick <= high]
    axes.set_yscale("asinh", linear_width=1.0)
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.set_yticks([], minor=True)
