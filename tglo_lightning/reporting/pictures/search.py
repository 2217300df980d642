"""A search: fitness, feasible draws and parameters over the generations; the finals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tglo_lightning.reporting.numbers import mean_sd, number
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.reporting.pictures.canvas import picture
from tglo_lightning.reporting.results import (
    evolved,
    family_of,
    leaders,
    measure,
    original_name,
    parameter_names,
    parameters_of,
)
from tglo_lightning.search.result import Candidate, SearchResult
from tglo_lightning.wording import counted


@picture
def fitness(search: SearchResult) -> canvas.Figure:
    """Every candidate's fitness by generation, the failed ones at the foot, and the best so far."""
    figure, axes = canvas.new_axes(3.8, "Fitness of every candidate", measure(search))
    failed = [c for c in search.history if not math.isfinite(c.fitness)]
    width = 1 + max((c.index for c in search.history), default=0)
    last = 1 + max((c.generation for c in search.history), default=0)
    families: dict[str, list[Candidate]] = {}
    for candidate in search.history:
        if math.isfinite(candidate.fitness):
            families.setdefault(family_of(candidate.criterion), []).append(candidate)
    for at, (family, members) in enumerate(families.items()):
        style: dict[str, Any] = {"color": canvas.METALEARNED, "label": "candidate"}
        if len(families) > 1:
            style = {"color": canvas.series(at)["color"], "label": family}
        places = _places(members, width, last > 1)
        canvas.dots(axes, places, [c.fitness for c in members], alpha=0.55, s=22, **style)
    if failed:
        style = {"color": canvas.RED, "marker": "X", "s": 24, "label": f"failed ({len(failed)})"}
        foot = axes.get_xaxis_transform()
        canvas.dots(axes, _places(failed, width, last > 1), [0.02] * len(failed), transform=foot, **style)
    best = leaders(search)
    pick = max if search.mode == "max" else min
    steps = list(accumulate((c.fitness for c in best), pick))
    if last > 1 and best:
        line: dict[str, Any] = {"color": canvas.INK, "linewidth": 1.8, "label": "best so far"}
        axes.step([c.generation + 1 for c in best], steps, where="post", **line)
    original, name, against = search.original, original_name(search), ""
    if math.isfinite(original.mean):
        low, high = original.mean - original.std, original.mean + original.std
        axes.axhspan(low, high, color=canvas.ORIGINAL, alpha=0.15, linewidth=0)
        axes.axhline(original.mean, color=canvas.ORIGINAL, linestyle="--", linewidth=1.8, label=f"{name}, finals")
        against = f"; {name} has {mean_sd(original.fitness)} in the finals"
    axes.margins(y=0.1)
    canvas.integer_axis(axes, *(("generation", last) if last > 1 else ("candidate", width)))
    canvas.draw_legend(figure)
    reached = ""
    if best:
        first = next(c.generation for c in best if c.fitness == steps[-1]) + 1
        reached = f" The best reached {number(steps[-1], 4)}, in generation {first}{against}."
    figure.set_label(
        f"{counted(len(search.history), 'candidate')} in {counted(last, 'generation')}, {len(failed)} failed.{reached}"
    )
    return figure


def _places(members: Sequence[Candidate], width: int, several: bool = True) -> NDArray[Any]:
    """Where candidates stand on the axis of generations; those of a single one stand beside each other."""
    if not several:
        return np.array([c.index + 1 for c in members])
    return np.array([c.generation + 1 for c in members]) + canvas.spread_out([c.index for c in members], width, 0.6)


@picture
def feasible(search: SearchResult) -> canvas.Figure:
    """Share of the draws of each generation that the constraint accepted.

    Raises:
        ValueError: it was not recorded.
    """
    if not search.rejected:
        raise ValueError("Nothing to draw: the result does not say how many draws were rejected.")
    sizes = [sum(c.generation == g for c in search.history) for g in range(len(search.rejected))]
    pairs = zip(sizes, search.rejected, strict=True)
    shares = [100 * size / (size + rejected) if size else 0.0 for size, rejected in pairs]
    figure, axes = canvas.new_axes(3.2, "Draws that the constraint accepts", "% of the draws")
    axes.bar(range(1, len(shares) + 1), shares, color=canvas.PULL, width=0.7)
    axes.set_ylim(0, 104)
    canvas.integer_axis(axes, "generation", len(shares))
    figure.set_label(
        f"{number(shares[0])}\u00a0% of the draws were feasible in the first generation, {number(shares[-1])}\u00a0% "
        f"in the last; {counted(sum(search.rejected), 'draw')} rejected without training."
    )
    return figure


@picture
def parameters(search: SearchResult) -> canvas.Figure:
    """The parameters over the generations, of the candidates of the best family; lines: each generation's best of it.

    Raises:
        ValueError: no family was tried in several generations.
    """
    members = evolved(search)
    if not members:
        raise ValueError("Nothing to draw: no family of losses was tried in several generations.")
    champion = members[0].criterion
    best = leaders(replace(search, history=tuple(members)))
    rows = np.array([parameters_of(c.criterion) for c in members], float)
    moving = [i for i in range(rows.shape[1]) if np.ptp(rows[:, i]) > 0] or list(range(rows.shape[1]))
    names = parameter_names(champion)
    figure, axes = canvas.new_axes(3.2 + 0.19 * len(moving) / 2, "Parameters over the generations")
    colours = [canvas.series(at)["color"] for at in range(len(moving))]
    everywhere = np.tile(_places(members, 1 + max(c.index for c in members)), len(moving))
    canvas.dots(axes, everywhere, rows[:, moving].T.ravel(), s=7, c=np.repeat(colours, len(rows)), alpha=0.3)
    for at, i in enumerate(moving):
        heights, generations = [parameters_of(c.criterion)[i] for c in best], [c.generation + 1 for c in best]
        axes.plot(generations, heights, **canvas.series(at), markersize=4, label=names[i])
    canvas.integer_axis(axes, "generation", 1 + max(c.generation for c in search.history))
    canvas.draw_legend(figure)
    whose = "all of them" if len(members) == len(search.history) else f"all of its family, {family_of(champion)}"
    ends = ", ".join(f"{names[i]} {number(parameters_of(best[-1].criterion)[i])}" for i in moving)
    figure.set_label(
        f"Lines: the best of each generation; dots: {whose}. In generation {best[-1].generation + 1} the "
        f"best has {ends}."
    )
    return figure


@picture
def finals(search: SearchResult) -> canvas.Figure:
    """The confirmation on fresh seeds, and below it the choice that came before; a training a dot, mean and deviation.

    Raises:
        ValueError: nothing has been trained in the finals.
    """
    rows = [("original", canvas.ORIGINAL, search.original)]
    rows += [] if search.best is None else [("chosen", canvas.METALEARNED, search.best)]
    for each in search.finalists:
        name = each.name if each.criterion.losses else f"rate × {number(each.criterion.step)}"
        rows.append((f"{name}, choice", canvas.MUTED, each))
    rows = [row for row in rows if row[2].fitness]
    if not rows:
        raise ValueError("Nothing to draw: the finals have not begun.")
    figure, axes = canvas.new_axes(1.6 + 0.42 * len(rows), "Finals, from fresh seeds")
    for line, (_, colour, entrant) in enumerate(rows):
        values = canvas.finite(entrant.fitness)
        heights = line - 0.14 + canvas.jitter(len(values), 0.3)
        canvas.dots(axes, values, heights, s=18, color=colour, alpha=0.5, label="a training")
        if math.isfinite(entrant.mean):
            spread: dict[str, Any] = {"xerr": entrant.std, "label": "mean ± sd"} if len(entrant.fitness) > 1 else {}
            axes.errorbar(entrant.mean, line + 0.2, fmt="D", color=colour, capsize=3, **spread)
        if entrant.found is not None and colour == canvas.MUTED:
            style: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": canvas.INK, "markersize": 7}
            axes.plot([entrant.found], [line + 0.2], "o", **style, label="as the search had seen it")
    if math.isfinite(search.original.mean):
        axes.axvline(search.original.mean, color=canvas.ORIGINAL, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlabel(measure(search))
    canvas.draw_legend(figure)
    means = "; ".join(f"{label} {mean_sd(e.fitness)} (n\u00a0=\u00a0{len(e.fitness)})" for label, _, e in rows)
    figure.set_label(f"{search.monitor}: {means}.")
    return figure
