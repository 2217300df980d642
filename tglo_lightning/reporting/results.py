"""What reports and pictures read from the result of a search."""

from __future__ import annotations

import math

from torch import nn

from tglo_lightning.losses import FAMILIES, FamilyLoss
from tglo_lightning.reporting.stats import Verdict, verdict
from tglo_lightning.search import Criterion
from tglo_lightning.search.result import Candidate, Finalist, SearchResult
from tglo_lightning.theory.explanation import parameter_meanings

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def parameters_of(criterion: Criterion) -> list[float]:
    """Return the parameters of all losses, one after the other, and the factor on the learning rate."""
    return [*(value for loss in criterion.losses for value in loss.theta), criterion.step]


def parameter_names(criterion: Criterion) -> list[str]:
    """Return a short name for each number of :func:`parameters_of`."""
    names = []
    for place, loss in enumerate(criterion.losses, start=1):
        axes = FAMILIES[loss.family].axes if loss.family in FAMILIES else ()
        own = [axis.name for axis in axes] if len(axes) == len(loss.theta) else []
        if loss.family == "taylorglo":
            own = [_short(*entry) for entry in parameter_meanings(loss.theta).items()]
        own = own or [f"θ{index}" for index in range(len(loss.theta))]
        names += [f"{name} (loss {place})" if len(criterion.losses) > 1 else name for name in own]
    return [*names, "learning rate ×"]


def _short(name: str, meaning: str) -> str:
    """``t7`` and ``(y-t0) (h-t1)^2`` as ``θ₇ y h²``: the centres have lines of their own."""
    for long, short in (("(y-t0)", "y"), ("(h-t1)", "h"), ("^2", "²"), ("^3", "³"), ("^4", "⁴"), ("^5", "⁵")):
        meaning = meaning.replace(long, short)
    return f"θ{name[1:].translate(SUBSCRIPTS)} {meaning}"


def family_of(criterion: Criterion) -> str:
    """Return the names of the families of all losses; ``"original"`` for the module's own loss."""
    return ", ".join(loss.family for loss in criterion.losses) or "original"


def losses_of(entrant: Finalist) -> list[FamilyLoss]:
    """Return each of a finalist's losses as a module, in place of cross-entropy."""
    return [loss.build(nn.CrossEntropyLoss()) for loss in entrant.criterion.losses]


def leaders(search: SearchResult) -> list[Candidate]:
    """Return the best candidate of every generation that has one with a finite fitness."""
    best: dict[int, Candidate] = {}
    pick = max if search.mode == "max" else min
    for candidate in sorted(search.history, key=lambda c: c.generation):
        if math.isfinite(candidate.fitness):
            held = best.setdefault(candidate.generation, candidate)
            best[candidate.generation] = pick(held, candidate, key=lambda c: c.fitness)
    return list(best.values())


def leader(search: SearchResult) -> Finalist | None:
    """Return the best candidate so far, which no finals have confirmed; None if none was trained."""
    best = leaders(search)
    if not best:
        return None
    found = (max if search.mode == "max" else min)(best, key=lambda c: c.fitness)
    return Finalist(found.criterion, "candidate", (), found.fitness, found.generation)


def final_verdict(search: SearchResult) -> Verdict | None:
    """Compare the chosen finalist with the original loss on the confirming seeds, as the search decided.

    A training of the original that diverged counts as the worst value seen. None if there is nothing to compare.
    """
    if search.best is None or search.original.errors:
        return None
    finite = [value for value in (*search.best.fitness, *search.original.fitness) if math.isfinite(value)]
    worst = (min if search.mode == "max" else max)(finite, default=math.nan)
    original = [value if math.isfinite(value) else worst for value in search.original.fitness]
    if len(original) != len(search.best.fitness):
        return None
    return verdict(search.best.fitness, original, less=search.mode == "min", paired=True)
