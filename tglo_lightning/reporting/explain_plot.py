"""The picture of an explanation: where a loss pulls, where it pushes, where samples settle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tglo_lightning.reporting.canvas import PULL, PUSH, new_figure, save_figure
from tglo_lightning.theory import attraction_curve, equilibria
from tglo_lightning.theory.subject import LossLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tglo_lightning.theory.explanation import Explanation

# The palette of Okabe and Ito, told apart also without colour by the dashes
REFERENCES = {
    "cross-entropy": ("cross_entropy", "#0072B2", "--"),
    "squared error": ("brier", "#CC79A7", "-."),
    "Baikal": ("baikal", "#E69F00", (0, (3, 1, 1, 1, 1, 1))),
}
EPS = np.concatenate([np.geomspace(1e-4, 0.01, 200), np.linspace(0.01, 0.99, 981), 1 - np.geomspace(0.01, 1e-4, 200)])
EPS = np.unique(EPS)


def plot_explanation(explanation: Explanation, path: str | Path) -> Path:
    """Draw ``D(eps)`` of a loss over ``eps``, with the regimes shaded, beside cross-entropy, squared error and Baikal.

    Losses differ in scale by orders of magnitude, and a factor is only a learning rate: each curve is divided by its
    own size at the null epoch, so that all trainable losses meet there at 1.

    Args:
        explanation: of :func:`tglo_lightning.theory.explain`.
        path: file to write; its suffix chooses the format, and its folder is made if need be.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
    """
    n = explanation.num_classes
    figure = new_figure(9.6, 5.2)
    axes = figure.add_subplot()
    own = scaled_curve(explanation.loss, n)
    _shade(axes, own)
    axes.axhline(0, color="black", linewidth=0.8)
    chance = (n - 1) / n
    axes.axvline(chance, color="0.45", linewidth=1, linestyle=":")
    for label, (name, colour, dashes) in REFERENCES.items():
        axes.plot(EPS, scaled_curve(name, n), color=colour, linestyle=dashes, linewidth=1.6, label=label)
        others = equilibria(name, n)
        axes.plot(others, np.zeros(len(others)), "o", markersize=7, markerfacecolor="white", markeredgecolor=colour)
    axes.plot(EPS, own, color="black", linewidth=2.6, label=f"{explanation.name} (this loss)")
    for eps, confidence, _ in explanation.equilibria:
        axes.axvline(eps, color="black", linewidth=1)
        settles = f"settles at $\\epsilon^*$ = {eps:.3f},\nconfidence {confidence:.3f}"
        axes.plot([eps], [0], "o", color="black", markersize=9, label=settles)
    axes.plot([], [], "o", markersize=7, markerfacecolor="white", markeredgecolor="0.4", label="where another settles")
    _scale(axes, own)
    axes.set_xlim(0, 1)
    axes.set_xlabel(r"$\epsilon = 1 - h_T$, distance from zero training error (1 - confidence in the true class)")
    axes.set_ylabel("$D(\\epsilon)\\ /\\ |D|$ at the null epoch\n(no unit; nearly logarithmic beyond $\\pm 1$)")
    axes.annotate(
        "null epoch\n(all outputs 1/n)",
        (chance, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(-5, 0),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color="0.35",
        fontsize=8,
    )
    trained = {"yes": "trainable", "no": "not trainable", "doubtful": "doubtful to train"}[explanation.trainable]
    axes.set_title(f"{explanation.name}, n = {n}: {trained}, zero training error {explanation.verdict}", loc="left")
    figure.legend(loc="outside right upper", frameon=False)
    return save_figure(figure, path)


def scaled_curve(loss: LossLike, n: int) -> np.ndarray:
    """``D(EPS)`` over ``|D((n - 1)/n)|``; over its greatest size where that is zero."""
    curve = attraction_curve(loss, n, EPS.tolist()).detach().double().cpu().numpy()
    null = abs(float(attraction_curve(loss, n, (n - 1) / n)))
    scale = null if null > 1e-12 * np.abs(curve).max() else np.abs(curve).max()
    return curve / scale if scale > 0 else curve


def _shade(axes: Axes, own: np.ndarray) -> None:
    """The regimes of the explained loss over the whole height."""
    across = axes.get_xaxis_transform()
    regimes = ((1, PULL, "this loss pulls to zero error"), (-1, PUSH, "this loss pushes away from it"))
    for sign, colour, label in regimes:
        where = (np.sign(own) == sign).tolist()
        if any(where):
            axes.fill_between(
                EPS, 0, 1, where=where, transform=across, color=colour, alpha=0.14, linewidth=0, label=label
            )


def limits(own: np.ndarray) -> tuple[float, float, list[float]]:
    """Where to end the axis of a scaled curve, and its ticks, linear about 0 and logarithmic far from it.

    High enough for this loss, and no higher for infinities at the ends.
    """
    inner = own[(EPS > 0.01) & (EPS < 0.99)]
    low, high = max(min(1.3 * inner.min(), -3.0), -1e5), min(max(1.3 * inner.max(), 10.0), 1e5)
    sizes = [0.5, 1, 2, 5, 10, 100, 1e3, 1e4, 1e5]
    return low, high, [tick for tick in (*(-size for size in sizes), 0.0, *sizes) if low <= tick <= high]


def _scale(axes: Axes, own: np.ndarray) -> None:
    low, high, ticks = limits(own)
    axes.set_yscale("asinh", linear_width=1.0)
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.grid(axis="y", color="0.88", linewidth=0.6)
