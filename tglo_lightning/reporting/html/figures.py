"""The plots of a report as Plotly's JSON, each with what it says in words.

Colours are names, such as ``"@original"``, that the page looks up in its style sheet when it draws: so the plots follow
the page into the dark. Plotly itself is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tglo_lightning.reporting.attraction_record import AttractionRecord
from tglo_lightning.reporting.explain_plot import EPS, limits, scaled_curve
from tglo_lightning.reporting.html.files import Curves
from tglo_lightning.search.result import Candidate, Finalist, SearchResult
from tglo_lightning.theory import Explanation, equilibria
from tglo_lightning.theory.explanation import parameter_meanings
from tglo_lightning.wording import counted

if TYPE_CHECKING:
    from tglo_lightning.reporting.robustness_report import RobustnessReport

__all__ = ["Key", "Panel"]

# An SVG of many thousand points is slow on a phone
POINTS = 1500
SERIES = 8
DASHES = ("solid", "dash", "dot", "dashdot")
REFERENCES = (
    ("cross-entropy", "cross_entropy", "@original", "dash"),
    ("squared error", "brier", "@baseline", "dashdot"),
    ("Baikal", "baikal", "@baikal", "dot"),
)
STAGES = {"val": "validation", "train": "training", "test": "test"}
METRICS = {
    "acc": "accuracy",
    "nll": "negative log-likelihood (nats)",
    "brier": "Brier score",
    "ece": "calibration error",
}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")


@dataclass(frozen=True)
class Key:
    """An entry of a plot's legend.

    Attributes:
        label: what it says.
        colour: name of a colour.
        mark: ``line``, ``dash``, ``dot``, ``dots``, ``ring``, ``diamond``, ``cross`` or ``band``.
    """

    label: str
    colour: str
    mark: str = "line"


@dataclass
class Panel:
    """One plot.

    Attributes:
        title: what is drawn.
        height: what the height means, with its unit.
        alternative: what the plot shows, in words.
        data: Plotly's traces.
        layout: Plotly's layout.
        keys: the legend.
        pixels: height of the plot.
        wide: whether it takes the whole width of the page.
    """

    title: str
    height: str
    alternative: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    keys: list[Key] = field(default_factory=list)
    pixels: int = 320
    wide: bool = False

    @property
    def figure(self) -> dict[str, Any]:
        """What Plotly draws."""
        return {"data": self.data, "layout": self.layout}


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading: ``digits`` significant ones, a true minus sign."""
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:.{digits}g}"
    if "e" in shown:
        mantissa, exponent = shown.split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}\u00a0×\u00a010{power}".replace("-", "−")
    return shown.replace("-", "−")


def long_name(metric: str) -> str:
    """A metric in words, such as ``"validation accuracy"`` for ``"val/acc"``."""
    stage, slash, name = metric.rpartition("/")
    return f"{STAGES.get(stage, stage)} {METRICS.get(name, name)}" if slash else METRICS.get(name, name)


def percent(share: float) -> str:
    """A share for reading."""
    return f"{100 * share:.3g}\u00a0%"


def _layout(x: str, *, upto: int = 0, **more: Any) -> dict[str, Any]:
    """A layout; ``upto``: the last of the whole numbers along ``x``."""
    axis = {
        "gridcolor": "@grid",
        "zerolinecolor": "@grid",
        "linecolor": "@axis",
        "tickcolor": "@axis",
        "automargin": True,
        "ticks": "outside",
        "ticklen": 4,
    }
    layout: dict[str, Any] = {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "@muted"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 44, "r": 14, "t": 10, "b": 44},
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@axis", "font": {"color": "@ink"}},
        "showlegend": False,
        "hovermode": "closest",
        "xaxis": {
            **axis,
            "title": {"text": x, "standoff": 10, "font": {"size": 13}},
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": {**axis, "zeroline": False},
    }
    if upto:
        step = next(size * 10**power for power in range(9) for size in (1, 2, 5) if upto <= 8 * size * 10**power)
        layout["xaxis"] |= {"dtick": step, "tick0": 0, "tickformat": "d"}
    for name, value in more.items():
        layout[name] = {**layout[name], **value} if isinstance(layout.get(name), dict) else value
    return layout


def _plain(values: Sequence[float] | NDArray[Any], digits: int = 5) -> list[float | None]:
    """Numbers for JSON: short, and None for what is not finite."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in map(float, values)]


def _line(x: Sequence[Any], y: Sequence[Any], colour: str, **more: Any) -> dict[str, Any]:
    line = {"color": colour, "width": more.pop("width", 2), "dash": more.pop("dash", "solid")}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "line": line, **more}


def _dots(x: Sequence[Any], y: Sequence[Any], colour: str, **marker: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "marker": {"color": colour, **marker}}


def _band(x: Sequence[float], low: Sequence[Any], high: Sequence[Any], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": f"{colour}-band",
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
    }


def explanation(told: Explanation) -> Panel:
    """``D(eps)`` of a loss beside cross-entropy, squared error and Baikal, each scaled to 1 at the null epoch."""
    n = told.num_classes
    own = scaled_curve(told.loss, n)
    low, high, ticks = limits(own)
    drawn = np.unique(np.concatenate([np.arange(0, len(EPS), 6), [len(EPS) - 1]]))
    x = _plain(EPS[drawn], 4)

    def curve(values: NDArray[Any], name: str, colour: str, **more: Any) -> dict[str, Any]:
        inside = np.where((values > 3 * low) & (values < 3 * high), values, np.nan)[drawn]
        hover = f"{name}<br>ε = %{{x:.3f}}<br>scaled D = %{{customdata:.3g}}<extra></extra>"
        y = _plain(np.arcsinh(inside))
        return _line(x, y, colour, customdata=_plain(inside), hovertemplate=hover, **more)

    data = [curve(scaled_curve(name, n), label, colour, dash=dash) for label, name, colour, dash in REFERENCES]
    data.append(curve(own, "this loss", "@ink", width=3))
    for _, name, colour, _ in REFERENCES:
        rests = equilibria(name, n)
        data.append(
            _dots(_plain(rests), [0] * len(rests), "@card", size=9, line={"color": colour, "width": 2})
            | {"hovertemplate": "settles at ε = %{x:.3f}<extra></extra>"}
        )
    rests = [rest.eps for rest in told.equilibria]
    data.append(
        _dots(_plain(rests), [0] * len(rests), "@ink", size=12)
        | {"hovertemplate": "this loss settles at ε* = %{x:.3f}<extra></extra>"}
    )
    chance = (n - 1) / n
    shapes = [
        {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": start, "x1": stop, "layer": "below"}
        | {"fillcolor": "@pull-band" if sign > 0 else "@push-band", "line": {"width": 0}}
        for sign, start, stop in _signs(own)
    ]
    shapes += [
        {"type": "line", "x0": eps, "x1": eps, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": "@ink", "width": 1}}
        for eps in rests
    ]
    shapes += [
        {"type": "line", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"color": "@axis", "width": 1}},
        {"type": "line", "x0": chance, "x1": chance, "yref": "paper", "y0": 0, "y1": 1}
        | {"line": {"color": "@axis", "width": 1, "dash": "dot"}},
    ]
    note = {"x": chance, "y": 0.02, "yref": "paper", "yanchor": "bottom", "xanchor": "right", "xshift": -4}
    layout = _layout(
        "ε = 1 − confidence in the true class",
        xaxis={"range": [0, 1]},
        yaxis={
            "range": [math.asinh(low), math.asinh(high)],
            "tickvals": [math.asinh(tick) for tick in ticks],
            "ticktext": [f"{tick:g}".replace("-", "−") for tick in ticks],
        },
        shapes=shapes,
        annotations=[{**note, "text": "null epoch", "showarrow": False, "font": {"color": "@muted", "size": 12}}],
    )
    settles = ", ".join(f"ε* = {number(eps)} (confidence {number(1 - eps)})" for eps in rests) or "nowhere"
    pulls = ", ".join(
        f"{'pulls towards' if sign > 0 else 'pushes away from'} zero training error for ε from "
        f"{number(a, 2)} to {number(b, 2)}"
        for sign, a, b in _signs(own)
    )
    keys = [Key("this loss", "ink")]
    keys += [Key(label, colour[1:], "line" if dash == "solid" else "dash") for label, _, colour, dash in REFERENCES]
    keys += [Key("pulls to zero error", "pull-band", "band")] if any(sign > 0 for sign, *_ in _signs(own)) else []
    keys += [Key("pushes away", "push-band", "band")] if any(sign < 0 for sign, *_ in _signs(own)) else []
    keys += [Key("this loss settles", "ink", "dots")] if rests else []
    keys += [Key("another settles", "muted", "ring")]
    return Panel(
        f"D(ε) of the {told.name}, n = {n}",
        "D(ε), scaled to ±1 at the null epoch",
        f"The loss {pulls}. It settles {'at ' if rests else ''}{settles}. Cross-entropy pulls towards zero training "
        "error everywhere and settles nowhere.",
        data,
        layout,
        keys,
        pixels=400,
        wide=True,
    )


def _signs(own: NDArray[Any]) -> list[tuple[int, float, float]]:
    """Where a curve is above or below zero: sign, from, to."""
    signs = np.sign(own).astype(int)
    cuts = [0, *(np.flatnonzero(np.diff(signs)) + 1).tolist(), len(EPS)]
    edges = [0.0, *((EPS[cut - 1] + EPS[cut]) / 2 for cut in cuts[1:-1]), 1.0]
    return [
        (int(signs[start]), float(edges[i]), float(edges[i + 1])) for i, start in enumerate(cuts[:-1]) if signs[start]
    ]


def fitness(search: SearchResult) -> Panel:
    """Every candidate's fitness by generation, failed ones at the foot."""
    ok = [c for c in search.history if math.isfinite(c.fitness)]
    failed = [c for c in search.history if not math.isfinite(c.fitness)]
    sign = 1 if search.mode == "max" else -1
    values = [c.fitness for c in ok]
    original = search.original
    shown = values + ([original.mean] if math.isfinite(original.mean) else [])
    top, bottom = (max(shown), min(shown)) if shown else (1.0, 0.0)
    foot = bottom - 0.08 * ((top - bottom) or 1.0)
    width = 1 + max((c.index for c in search.history), default=0)

    def place(candidate: Candidate) -> float:
        return round(candidate.generation + 1 + 0.6 * ((candidate.index + 0.5) / width - 0.5), 3)

    hover = "generation %{customdata[0]}, candidate %{customdata[1]}<br>"
    data = [
        _dots([place(c) for c in ok], _plain(values), "@metalearned", size=7, opacity=0.55)
        | {"customdata": [[c.generation + 1, c.index + 1] for c in ok]}
        | {"hovertemplate": hover + escape(search.monitor) + " %{y:.4g}<extra></extra>"}
    ]
    if failed:
        data.append(
            _dots([place(c) for c in failed], [foot] * len(failed), "@bad", size=8, symbol="x-thin-open")
            | {"customdata": [[c.generation + 1, c.index + 1, escape((c.error or c.status)[:120])] for c in failed]}
            | {"hovertemplate": hover + "failed: %{customdata[2]}<extra></extra>"}
        )
    leaders = _leaders(search)
    if leaders:
        best, steps = leaders[0].fitness, []
        for leader in leaders:
            best = max(best * sign, leader.fitness * sign) * sign
            steps.append(best)
        step = _line([c.generation + 1 for c in leaders], _plain(steps), "@ink")
        step["line"]["shape"] = "hv"
        data.append(step | {"hovertemplate": "best so far %{y:.4g}<extra></extra>"})
    last = 1 + max((c.generation for c in search.history), default=0)
    shapes: list[dict[str, Any]] = []
    if math.isfinite(original.mean):
        across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
        spread = original.std
        shapes = [
            {"type": "rect", **across, "y0": original.mean - spread, "y1": original.mean + spread}
            | {"fillcolor": "@original-band", "line": {"width": 0}},
            {"type": "line", **across, "y0": original.mean, "y1": original.mean}
            | {"line": {"color": "@original", "width": 2, "dash": "dash"}},
        ]
    keys = [Key("candidate", "metalearned", "dots"), Key("best so far", "ink")]
    several = "mean ± sd of" if len(original.fitness) > 1 else "in"
    keys += [Key(f"{original.name}, {several} the finals", "original", "dash")] if shapes else []
    keys += [Key(f"failed ({len(failed)})", "bad", "cross")] if failed else []
    reached = f"The best reached {number(steps[-1], 4)}, in generation {_first(leaders, steps[-1])}" if leaders else ""
    average = " on average" if len(original.fitness) > 1 else ""
    against = f"; {original.name} has {number(original.mean, 4)}{average}" if shapes and leaders else ""
    return Panel(
        "Fitness of every candidate",
        f"{search.monitor} ({'higher' if sign > 0 else 'lower'} is better)",
        f"{counted(len(search.history), 'candidate')} in {counted(last, 'generation')}, {len(failed)} failed. "
        f"{reached}{against}.",
        data,
        _layout("generation", upto=last, xaxis={"range": [0.5, last + 0.5]}, shapes=shapes),
        keys,
        pixels=380,
        wide=True,
    )


def _leaders(search: SearchResult) -> list[Candidate]:
    """The best candidate of every generation that has one."""
    sign = 1 if search.mode == "max" else -1
    leaders: dict[int, Candidate] = {}
    for c in search.history:
        held = leaders.get(c.generation)
        if math.isfinite(c.fitness) and (held is None or sign * c.fitness > sign * held.fitness):
            leaders[c.generation] = c
    return [leaders[generation] for generation in sorted(leaders)]


def _first(leaders: Sequence[Candidate], fitness: float) -> int:
    return next(c.generation for c in leaders if c.fitness == fitness) + 1


def feasible(search: SearchResult) -> Panel | None:
    """Share of the draws of each generation that the constraint let through; None where it was not recorded."""
    if not search.refused:
        return None
    sizes = [sum(c.generation == g for c in search.history) for g in range(len(search.refused))]
    shares = [
        100 * size / (size + refused) if size else 0.0 for size, refused in zip(sizes, search.refused, strict=True)
    ]
    x = list(range(1, len(shares) + 1))
    bars = {"type": "bar", "x": x, "y": _plain(shares, 4), "marker": {"color": "@pull"}, "width": 0.7}
    bars["customdata"] = list(search.refused)
    bars["hovertemplate"] = "generation %{x}: %{y:.0f} %<br>%{customdata} draws refused<extra></extra>"
    first, last = number(shares[0], 3), number(shares[-1], 3)
    return Panel(
        "Feasible share of the draws",
        "draws that the constraint lets through, %",
        f"{first}\u00a0% of the draws were feasible in the first generation, {last}\u00a0% in the last; "
        f"{counted(sum(search.refused), 'draw')} refused without training.",
        [bars],
        _layout("generation", upto=len(x), yaxis={"range": [0, 104]}, xaxis={"range": [0.4, len(x) + 0.6]}),
        pixels=300,
    )


def theta(search: SearchResult) -> Panel | None:
    """The parameters of the candidates over the generations; None without a candidate that trained."""
    leaders = _leaders(search)
    if not leaders:
        return None
    losses = int(search.settings.get("losses", 1))
    rows = np.array([c.theta for c in search.history], float)
    moving = [i for i in range(rows.shape[1]) if np.ptp(rows[:, i]) > 0] or list(range(rows.shape[1]))
    names = _parameter_names(search.history[0].theta, losses)
    every = max(1, len(rows) * len(moving) // (2 * POINTS))
    generations = [c.generation + 1 for c in search.history]
    width = 1 + max(c.index for c in search.history)
    spots = [
        round(g + 0.5 * ((c.index + 0.5) / width - 0.5), 3) for g, c in zip(generations, search.history, strict=True)
    ]
    data, keys = [], []
    for row, i in enumerate(moving):
        colour = f"s{row % SERIES}"
        scatter = _dots(spots[::every], _plain(rows[::every, i], 4), f"@{colour}", size=4, opacity=0.25)
        data.append(scatter | {"hoverinfo": "skip"})
        line = _line(
            [c.generation + 1 for c in leaders], _plain([c.theta[i] for c in leaders], 4), f"@{colour}",
            dash=DASHES[row // SERIES % len(DASHES)],
        )  # fmt: skip
        line["mode"] = "lines+markers"
        line["marker"] = {"color": f"@{colour}", "size": 7, "symbol": SYMBOLS[row % len(SYMBOLS)]}
        data.append(line | {"hovertemplate": f"{names[i]}<br>generation %{{x}}: %{{y:.4g}}<extra></extra>"})
        keys.append(Key(names[i], colour))
    ends = ", ".join(f"{names[i]} {number(leaders[-1].theta[i])}" for i in moving)
    return Panel(
        "Parameters θ over the generations",
        "θ: line, best candidate of a generation; dots, all of them",
        f"The best candidate of generation {leaders[-1].generation + 1} has {ends}.",
        data,
        _layout("generation", upto=max(generations), xaxis={"range": [0.5, max(generations) + 0.5]}),
        keys,
        pixels=300,
    )


def _parameter_names(vector: Sequence[float], losses: int) -> list[str]:
    names = []
    for loss, part in enumerate(split_theta(vector, losses), start=1):
        if len(part) == 2:
            own = ["factor c", "smoothing α"]
        else:
            meanings = parameter_meanings(part)
            own = [f"θ{name[1:].translate(_SUBSCRIPTS)} {_short(told)}" for name, told in meanings.items()]
        names += [f"{name} (loss {loss})" if losses > 1 else name for name in own]
    return names


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _short(meaning: str) -> str:
    """``(y-t0) (h-t1)^2`` as ``y h²``; the centres have their own lines."""
    for long, short in (("(y-t0)", "y"), ("(h-t1)", "h"), ("^2", "²"), ("^3", "³"), ("^4", "⁴"), ("^5", "⁵")):
        meaning = meaning.replace(long, short)
    return meaning


def _mean(entrant: Finalist) -> str:
    """Mean and standard deviation; a single value has none."""
    spread = f" ± {number(entrant.std, 2)}" if len(entrant.fitness) > 1 else ""
    return f"{number(entrant.mean, 4)}{spread}"


def finalists(search: SearchResult) -> Panel:
    """Finalists and original over fresh seeds: every training a dot, mean and standard deviation beside."""
    entrants = [search.original, *search.finalists]
    data: list[dict[str, Any]] = []
    for line, entrant in enumerate(entrants):
        colour = "@original" if entrant.theta is None else "@metalearned"
        values = [v for v in entrant.fitness if math.isfinite(v)]
        heights = [round(line + 0.3 * (i * 0.618 % 1 - 0.5) - 0.14, 3) for i in range(len(values))]
        dots = _dots(_plain(values), heights, colour, size=6, opacity=0.45)
        data.append(dots | {"hovertemplate": f"{_named(entrant)}: %{{x:.4g}}<extra></extra>"})
        if math.isfinite(entrant.mean):
            mean = _dots(_plain([entrant.mean]), [line + 0.2], colour, size=10, symbol="diamond")
            if len(entrant.fitness) > 1:
                mean["error_x"] = {"type": "data", "array": [entrant.std], "color": colour, "thickness": 2, "width": 5}
            data.append(mean | {"hovertemplate": f"{_named(entrant)}: {_mean(entrant)}<extra></extra>"})
        if entrant.found is not None:
            found = _dots([entrant.found], [line + 0.2], "rgba(0,0,0,0)", size=10, line={"color": "@ink", "width": 1.5})
            data.append(found | {"hovertemplate": "in the search: %{x:.4g}<extra></extra>"})
    keys = [Key(search.original.name, "original", "dots"), Key("finalist", "metalearned", "dots")]
    several = max(len(e.fitness) for e in entrants) > 1
    keys += [
        Key("mean ± sd" if several else "the one training", "ink", "diamond"),
        Key("as the search had seen it", "ink", "ring"),
    ]
    shapes = []
    if math.isfinite(search.original.mean):
        shapes = [
            {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
            | {"x0": search.original.mean, "x1": search.original.mean}
            | {"line": {"color": "@original", "width": 1, "dash": "dot"}}
        ]
    told = "; ".join(f"{_named(e)} {_mean(e)} (n\u00a0=\u00a0{len(e.fitness)})" for e in entrants if e.fitness)
    return Panel(
        "Finalists and the original loss, trained again from fresh seeds",
        "",
        f"{search.monitor}: {told}.",
        data,
        _layout(
            f"{escape(search.monitor)} ({'higher' if search.mode == 'max' else 'lower'} is better)",
            yaxis={
                "tickvals": list(range(len(entrants))),
                "ticktext": ["original", *(escape(e.name) for e in search.finalists)],
                "range": [len(entrants) - 0.5, -0.5],
                "showgrid": False,
                "ticks": "",
            },
            xaxis={"showgrid": True},
            shapes=shapes,
        ),
        keys,
        pixels=90 + 48 * len(entrants),
        wide=True,
    )


def _named(entrant: Finalist) -> str:
    return escape(entrant.name)


def colour_of(kind: str) -> str:
    """The colour of a loss by how it came about."""
    return kind if kind in ("original", "metalearned", "baseline") else "ink"


def curves(recorded: Curves, names: Mapping[str, str], monitor: str) -> list[Panel]:
    """Training and validation over the epochs, mean and standard deviation over the seeds.

    Metrics are drawn for all losses in one plot; but each loss's own value in a plot of its own, as its scale is.
    """
    metrics = {m for seeds in recorded.values() for seed in seeds for m in seed}
    panels = []
    for metric in sorted(metrics, key=lambda m: (m != monitor, not m.startswith("val/"), m)):
        if metric.rpartition("/")[2] in ("brier", "ece"):
            continue
        owners = [kind for kind in recorded if any(metric in seed for seed in recorded[kind])]
        own_scale = metric.rpartition("/")[2].startswith("loss")
        groups = [[kind] for kind in owners] if own_scale else [owners]
        panels += [_curve(recorded, names, metric, kinds, own_scale=own_scale) for kinds in groups]
    return panels


def _curve(recorded: Curves, names: Mapping[str, str], metric: str, kinds: Sequence[str], *, own_scale: bool) -> Panel:
    data, keys, told, longest = [], [], [], 0
    for kind in kinds:
        rows = [seed[metric] for seed in recorded[kind] if metric in seed]
        length = min(map(len, rows))
        longest = max(longest, length)
        columns = list(zip(*(row[:length] for row in rows), strict=True))
        means = [fmean(c) if None not in c else math.nan for c in columns]
        spreads = [stdev(c) if None not in c and len(c) > 1 else 0.0 for c in columns]
        x = [epoch + 1 for epoch, mean in enumerate(means) if math.isfinite(mean)]
        middle = [(m, s) for m, s in zip(means, spreads, strict=True) if math.isfinite(m)]
        colour = f"@{colour_of(kind)}"
        if len(rows) > 1:
            low, high = _plain([m - s for m, s in middle]), _plain([m + s for m, s in middle])
            data.append(_band(x, low, high, colour))
        dash = {"original": "dash", "baseline": "dot"}.get(kind, "solid")
        line = _line(x, _plain([m for m, _ in middle]), colour, dash=dash, width=2.5)
        if len(x) == 1:
            line["mode"] = "markers"
        line["name"] = escape(names[kind])
        data.append(line | {"hovertemplate": f"{escape(names[kind])}: %{{y:.4g}}<extra></extra>"})
        keys.append(Key(names[kind], colour[1:], "line" if dash == "solid" else "dash"))
        if middle:
            told.append(f"{names[kind]} goes from {number(middle[0][0])} to {number(middle[-1][0])}")
    unit = ", nats" if metric.endswith("nll") else ", in units of this loss" if own_scale else ""
    title = long_name(metric).partition(" (")[0]
    title = title[0].upper() + title[1:] + (f", {names[kinds[0]]}" if own_scale else "")
    return Panel(
        title,
        f"{metric}{unit}",
        f"{metric} over the epochs: {'; '.join(told)}.",
        data,
        _layout("epoch", upto=longest, hovermode="x unified"),
        [] if own_scale else keys,
    )


def attraction(record: AttractionRecord, name: str, scale: tuple[float, float] | None = None) -> list[Panel]:
    """Attraction and confidence of the samples over the epochs, coloured by who is pulled in and who pushed away."""
    pulls, confidence = record.quantity("attraction"), 1 - record.quantity("eps")
    last = pulls[-1][~np.isnan(pulls[-1])]
    away = float(np.mean(last < 0)) if last.size else 0.0
    end = float(np.nanmedian(confidence[-1]))
    keys = [Key("pulled in", "pull", "dots"), Key("pushed away", "push", "dots"), Key("median", "ink")]
    first = _scattered(
        record,
        pulls,
        pulls,
        f"Attraction, {name}",
        "velocity of the true class's logit",
        f"At the end {percent(away)} of the samples are pushed away from zero training error; the median attraction is "
        f"{number(float(np.nanmedian(pulls[-1])))}.",
    )
    first.keys = keys
    first.layout["shapes"] = [_level(0.0, "@axis", "solid")]
    second = _scattered(
        record,
        confidence,
        pulls,
        f"Confidence, {name}",
        "confidence in the true class",
        f"The median confidence in the true class goes from {number(float(np.nanmedian(confidence[0])))} to "
        f"{number(end)}.",
    )
    rests = record.equilibria[-1]
    second.layout["shapes"] = [_level(1 / record.num_classes, "@muted", "dot")]
    second.layout["shapes"] += [_level(1 - eps, "@ink", "dash") for eps in rests]
    second.layout["yaxis"]["range"] = [-0.03, 1.03]
    second.keys = [*keys, Key("chance", "muted", "dot")]
    if rests:
        second.keys.append(Key(f"predicted rest {', '.join(number(1 - eps) for eps in rests)}", "ink", "dash"))
        second.alternative += f" The theory predicts rest at {', '.join(number(1 - eps) for eps in rests)}."
    else:
        second.alternative += " The theory predicts no rest below 1."
    return [first, second]


def _level(height: float, colour: str, dash: str) -> dict[str, Any]:
    line = {"color": colour, "width": 1.5, "dash": dash}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}


def _scattered(
    record: AttractionRecord,
    heights: NDArray[np.float32],
    pulls: NDArray[np.float32],
    title: str,
    height: str,
    alternative: str,
) -> Panel:
    """One point a sample and measurement; of many samples some, the same at each epoch."""
    every = -(-pulls.size // POINTS)
    epochs = np.asarray(record.epochs, float)
    gap = np.diff(epochs).min() if len(epochs) > 1 else 1.0
    samples = np.arange(0, pulls.shape[1], every)
    places = epochs[:, None] + 0.7 * gap * (samples / max(1, pulls.shape[1]) - 0.5)
    data = []
    for colour, where in (("@pull", pulls[:, samples] >= 0), ("@push", pulls[:, samples] < 0)):
        data.append(
            _dots(_plain(places[where], 4), _plain(heights[:, samples][where], 4), colour, size=4, opacity=0.45)
            | {"hoverinfo": "skip"}
        )
    median = _line(record.epochs, _plain(np.nanmedian(heights, axis=1)), "@ink", width=2.5)
    data.append(median | {"hovertemplate": "epoch %{x}<br>median %{y:.4g}<extra></extra>"})
    return Panel(title, height, alternative, data, _layout("epochs trained", upto=max(record.epochs)))


def robustness(report: RobustnessReport, name: str) -> Panel:
    """Accuracy over the radius of the attack, one line an attack, and the worst case over them."""
    data, keys = [], []
    for row, attack in enumerate(report.attacks):
        colour, dash = f"s{row % SERIES}", "solid" if attack.iterated else "dash"
        line = _line(report.epsilons, _plain(attack.accuracy), f"@{colour}", dash=dash)
        line["mode"] = "lines+markers"
        line["marker"] = {"color": f"@{colour}", "size": 7, "symbol": SYMBOLS[row % len(SYMBOLS)]}
        data.append(line | {"hovertemplate": f"{escape(attack.name)}: %{{y:.3f}}<extra></extra>"})
        keys.append(Key(attack.name, colour, "line" if attack.iterated else "dash"))
    worst = _line(report.epsilons, _plain(report.worst_case), "@ink", width=4)
    data.append(worst | {"hovertemplate": "worst case: %{y:.3f}<extra></extra>"})
    norm = {"linf": "L∞", "l2": "L₂"}.get(report.norm, report.norm)
    layout = _layout(f"ε, {norm} radius in units of pixels", hovermode="x unified", yaxis={"range": [-0.02, 1.02]})
    layout["shapes"] = [_level(report.clean_accuracy, "@muted", "dot")]
    keys += [Key("worst case", "ink"), Key("without attack", "muted", "dot")]
    return Panel(
        f"Accuracy under attack: {name}",
        "accuracy",
        f"{percent(report.clean_accuracy)} of {counted(report.samples, 'image')} classified rightly without attack, "
        f"{percent(report.worst_case[-1])} in the worst case over {counted(len(report.attacks), 'attack')} at ε = "
        f"{report.epsilons[-1]:g}.",
        data,
        layout,
        keys,
        pixels=360,
        wide=True,
    )
