"""A search: fitness, feasible draws and parameters over the generations; the finals."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from tglo_lightning.reporting.numbers import mean_sd, number
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture
from tglo_lightning.reporting.results import entrants, leaders, parameter_names, vector
from tglo_lightning.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tglo_lightning.search.result import SearchResult


@picture
def fitness(search: SearchResult) -> Figure:
    """Every candidate's fitness by generation, the failed ones at the foot, and the best so far."""
    figure = canvas.new_figure(3.8)
    axes = figure.add_subplot()
    trained = [c for c in search.history if math.isfinite(c.fitness)]
    failed = [c for c in search.history if not math.isfinite(c.fitness)]
    width = 1 + max((c.index for c in search.history), default=0)
    last = 1 + max((c.generation for c in search.history), default=0)
    for members, heights, style in (
        (
            trained,
            [c.fitness for c in trained],
            {"color": canvas.METALEARNED, "alpha": 0.55, "s": 22, "label": "candidate"},
        ),
        (
            failed,
            [0.02] * len(failed),
            {"color": canvas.RED, "marker": "X", "s": 24, "label": f"failed ({len(failed)})"},
        ),
    ):
        if members:
            places = [c.generation + 1 for c in members] + canvas.spread_out([c.index for c in members], width, 0.6)
            if members is failed:
                style["transform"] = axes.get_xaxis_transform()
            canvas.dots(axes, places, heights, **style)
    best = leaders(search)
    pick = max if search.mode == "max" else min
    steps = list(accumulate((c.fitness for c in best), pick))
    if best:
        axes.step(
            [c.generation + 1 for c in best], steps, where="post", color=canvas.INK, linewidth=1.8, label="best so far"
        )
    original, against = search.original, ""
    if math.isfinite(original.mean):
        axes.axhspan(
            original.mean - original.std, original.mean + original.std, color=canvas.ORIGINAL, alpha=0.15, linewidth=0
        )
        axes.axhline(
            original.mean, color=canvas.ORIGINAL, linestyle="--", linewidth=1.8, label=f"{original.name}, finals"
        )
        against = f"; {original.name} has {mean_sd(original.fitness)} in the finals"
    axes.margins(y=0.1)
    axes.set_title("Fitness of every candidate")
    axes.set_ylabel(f"{search.monitor} ({'higher' if search.mode == 'max' else 'lower'} is better)")
    canvas.integer_axis(axes, "generation", last)
    canvas.draw_legend(figure)
    reached = ""
    if best:
        first = next(c.generation for c in best if c.fitness == steps[-1]) + 1
        reached = f" The best reached {number(steps[-1], 4)}, in generation {first}{against}."
    figure.set_label(
        f"{counted(len(search.history), 'candidate')} in {counted(last, 'generation')}, {len(failed)} failed.{reached}"
    )
    return figure


@picture
def feasible(search: SearchResult) -> Figure:
    """Share of the draws of each generation that the constraint accepted.

    Raises:
        ValueError: it was not recorded.
    """
    if not search.refused:
        raise ValueError("Nothing to draw: the result does not say how many draws were rejected.")
    sizes = [sum(c.generation == g for c in search.history) for g in range(len(search.refused))]
    pairs = zip(sizes, search.refused, strict=True)
    shares = [100 * size / (size + rejected) if size else 0.0 for size, rejected in pairs]
    figure = canvas.new_figure(3.2)
    axes = figure.add_subplot()
    axes.bar(range(1, len(shares) + 1), shares, color=canvas.PULL, width=0.7)
    axes.set_ylim(0, 104)
    axes.set_ylabel("% of the draws")
    axes.set_title("Draws that the constraint accepts")
    canvas.integer_axis(axes, "generation", len(shares))
    figure.set_label(
        f"{number(shares[0])}\u00a0% of the draws were feasible in the first generation, {number(shares[-1])}\u00a0% "
        f"in the last; {counted(sum(search.refused), 'draw')} rejected without training."
    )
    return figure


@picture
def parameters(search: SearchResult) -> Figure:
    """The parameters of the candidates over the generations; lines: those of the best of each generation.

    Raises:
        ValueError: no candidate came to a finite fitness.
    """
    best = leaders(search)
    if not best:
        raise ValueError("Nothing to draw: no candidate came to a finite fitness.")
    rows = np.array([vector(c) for c in search.history], float)
    moving = [i for i in range(rows.shape[1]) if np.ptp(rows[:, i]) > 0] or list(range(rows.shape[1]))
    names = parameter_names(search)
    generations = np.array([c.generation + 1 for c in search.history])
    width = 1 + max(c.index for c in search.history)
    places = generations + canvas.spread_out([c.index for c in search.history], width, 0.5)
    figure = canvas.new_figure(3.2 + 0.19 * len(moving) / 2)
    axes = figure.add_subplot()
    colours = [canvas.SERIES[at % len(canvas.SERIES)] for at in range(len(moving))]
    everywhere = np.tile(places, len(moving))
    canvas.dots(axes, everywhere, rows[:, moving].T.ravel(), s=7, c=np.repeat(colours, len(rows)), alpha=0.3)
    for at, i in enumerate(moving):
        colour, dash = colours[at], canvas.DASHES[at // len(canvas.SERIES) % len(canvas.DASHES)]
        heights = [vector(c)[i] for c in best]
        marker = canvas.MARKERS[at % len(canvas.MARKERS)]
        axes.plot(
            [c.generation + 1 for c in best], heights, dash, marker=marker, markersize=4, color=colour, label=names[i]
        )
    axes.set_title("Parameters θ over the generations")
    canvas.integer_axis(axes, "generation", int(generations.max()))
    canvas.draw_legend(figure)
    ends = ", ".join(f"{names[i]} {number(vector(best[-1])[i])}" for i in moving)
    figure.set_label(
        f"Lines: the best candidate of each generation; dots: all of them. In generation {best[-1].generation + 1} the "
        f"best has {ends}."
    )
    return figure


@picture
def finals(search: SearchResult) -> Figure:
    """Finalists and original loss, trained again from fresh seeds: a training a dot, mean and deviation beside."""
    shown = entrants(search)
    figure = canvas.new_figure(1.6 + 0.42 * len(shown))
    axes = figure.add_subplot()
    several = max(len(entrant.fitness) for entrant in shown) > 1
    for line, entrant in enumerate(shown):
        colour = canvas.ORIGINAL if line == 0 else canvas.METALEARNED
        values = canvas.finite(entrant.fitness)
        canvas.dots(
            axes,
            values,
            line - 0.14 + canvas.jitter(len(values), 0.3),
            s=18,
            color=colour,
            alpha=0.5,
            label="a training",
        )
        if math.isfinite(entrant.mean):
            spread = entrant.std if len(entrant.fitness) > 1 else None
            label = "mean ± sd" if several else None
            axes.errorbar(entrant.mean, line + 0.2, xerr=spread, fmt="D", color=colour, capsize=3, label=label)
        if entrant.found is not None:
            style: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": canvas.INK, "markersize": 7}
            axes.plot([entrant.found], [line + 0.2], "o", **style, label="as the search had seen it")
    if math.isfinite(search.original.mean):
        axes.axvline(search.original.mean, color=canvas.ORIGINAL, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(shown)), ["original", *(entrant.name for entrant in shown[1:])])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlabel(f"{search.monitor} ({'higher' if search.mode == 'max' else 'lower'} is better)")
    axes.set_title("Finals, from fresh seeds")
    canvas.draw_legend(figure)
    means = "; ".join(
        f"{entrant.name} {mean_sd(entrant.fitness)} (n\u00a0=\u00a0{len(entrant.fitness)})"
        for entrant in shown
        if entrant.fitness
    )
    figure.set_label(f"{search.monitor}: {means}.")
    return figure
