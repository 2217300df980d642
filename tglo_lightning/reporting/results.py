"""What reports and pictures read from the result of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from tglo_lightning.losses import SeparableLoss
from tglo_lightning.losses.registry import loss_like
from tglo_lightning.reporting.stats import Verdict, verdict
from tglo_lightning.search.result import Candidate, Finalist, SearchResult
from tglo_lightning.theory.explanation import parameter_meanings

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def vector(entrant: Candidate | Finalist) -> Sequence[float]:
    """The parameters of a candidate, those of all its losses one after the other."""
    assert entrant.theta is not None
    return entrant.theta


def parts(entrant: Finalist) -> list[list[float]]:
    """The parameters of each of a finalist's losses."""
    return split_theta(list(vector(entrant)), entrant.losses)


def losses_of(entrant: Finalist) -> list[SeparableLoss]:
    """Each of a finalist's losses as a module, in place of cross-entropy."""
    return [loss_like(nn.CrossEntropyLoss(), part) for part in parts(entrant)]


def entrants(search: SearchResult) -> list[Finalist]:
    """All that took part in the finals, the original loss first."""
    return [search.original, *search.finalists]


def leaders(search: SearchResult) -> list[Candidate]:
    """The best candidate of every generation that has one with a finite fitness."""
    best: dict[int, Candidate] = {}
    pick = max if search.mode == "max" else min
    for candidate in sorted(search.history, key=lambda c: c.generation):
        if math.isfinite(candidate.fitness):
            held = best.setdefault(candidate.generation, candidate)
            best[candidate.generation] = pick(held, candidate, key=lambda c: c.fitness)
    return list(best.values())


def leader(search: SearchResult) -> Finalist | None:
    """The best candidate so far, which no finals have confirmed; None if none was trained."""
    best = leaders(search)
    if not best:
        return None
    found = (max if search.mode == "max" else min)(best, key=lambda c: c.fitness)
    losses = int(search.settings.get("losses", 1))
    return Finalist(found.theta, "candidate", [], found.fitness, found.generation, losses)


def final_verdict(search: SearchResult, entrant: Finalist | None = None) -> Verdict | None:
    """How a finalist, by default the best, compares with the original loss; None without finite figures of both."""
    entrant = search.best if entrant is None else entrant
    if entrant is None:
        return None
    return verdict(entrant.fitness, search.original.fitness, less=search.mode == "min")


def parameter_names(search: SearchResult) -> list[str]:
    """A short name for each number of :func:`vector`."""
    losses = int(search.settings.get("losses", 1))
    names = []
    for loss, part in enumerate(split_theta(list(vector(search.history[0])), losses), start=1):
        own = (
            ["factor c", "smoothing α"]
            if len(part) == 2
            else [_short(*entry) for entry in parameter_meanings(part).items()]
        )
        names += [f"{name} (loss {loss})" if losses > 1 else name for name in own]
    return names


def _short(name: str, meaning: str) -> str:
    """``t7`` and ``(y-t0) (h-t1)^2`` as ``θ₇ y h²``: the centres have lines of their own."""
    for long, short in (("(y-t0)", "y"), ("(h-t1)", "h"), ("^2", "²"), ("^3", "³"), ("^4", "⁴"), ("^5", "⁵")):
        meaning = meaning.replace(long, short)
    return f"θ{name[1:].translate(SUBSCRIPTS)} {meaning}"
