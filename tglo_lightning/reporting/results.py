"""What reports and pictures read from the result of a search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tglo_lightning.losses import FAMILIES
from tglo_lightning.reporting.stats import Verdict, verdict
from tglo_lightning.search import Criterion
from tglo_lightning.search.finals import without_diverged
from tglo_lightning.search.result import Candidate, Finalist, SearchResult
from tglo_lightning.theory.explanation import parameter_meanings

OPTIONS = {"label_smoothing": "smoothing {}", "weight": "class weights {}", "ignore_index": "ignoring {}"}
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


def kind_of(search: SearchResult) -> str:
    """Return the kind of target that the losses of a search are for, ``"classes"`` unless one tells otherwise."""
    entries = [*search.history, *(() if search.best is None else (search.best,))]
    families = {loss.family for entry in entries for loss in entry.criterion.losses}
    return next((FAMILIES[name].kind for name in sorted(families) if name in FAMILIES), "classes")


def called(entrant: Finalist) -> str:
    """Return the name of a finalist; with the learning rate if that is all that tells it from the original loss."""
    return entrant.name if entrant.criterion.losses else entrant.formula


def described(name: str, options: Sequence[Mapping[str, Any]]) -> str:
    """Return the names of losses with their options.

    >>> described("CrossEntropyLoss", [{"label_smoothing": 0.1, "weight": [1.0, 2.5]}])
    'CrossEntropyLoss (smoothing 0.1, class weights 1, 2.5)'
    """
    names = name.split(", ")
    if len(names) != len(options):
        return name
    told = [", ".join(OPTIONS.get(key, f"{key} {{}}").format(_few(value)) for key, value in o.items()) for o in options]
    return ", ".join(f"{each} ({words})" if words else each for each, words in zip(names, told, strict=True))


def _few(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(f"{entry:g}" for entry in value) if len(value) < 5 else f"of {len(value)} classes"


def original_name(search: SearchResult) -> str:
    """Return the original loss as it is, with its options."""
    return described(search.original.name, search.settings.get("original_options", ()))


def original_loss(options: Sequence[Mapping[str, Any]], place: int = 0) -> nn.CrossEntropyLoss:
    """Return cross-entropy with the options of the original loss at a place of the module."""
    given = dict(options[place]) if place < len(options) else {}
    given = {k: torch.tensor(v) if k == "weight" else v for k, v in given.items()}
    return nn.CrossEntropyLoss(**given)


def measure(search: SearchResult) -> str:
    """Return the metric of a search, and which values of it are better."""
    return f"{search.monitor} ({'higher' if search.mode == 'max' else 'lower'} is better)"


def candidates_table(search: SearchResult) -> tuple[list[str], list[list[Any]]]:
    """Return every candidate as a row: generation, fitness under the metric's name, and what was trained with.

    Generations count from 1. A fitness or a parameter that is not there is None.
    """
    rows: list[list[Any]] = []
    width = max((len(parameters_of(c.criterion)) - 1 for c in search.history), default=0)
    for c in search.history:
        *theta, step = parameters_of(c.criterion)
        fitness = c.fitness if math.isfinite(c.fitness) else None
        padded = [*theta, *[None] * (width - len(theta))]
        place = [c.generation + 1, fitness, c.index, c.status, round(c.seconds, 3), family_of(c.criterion)]
        rows.append([*place, c.criterion.formula, step, *padded])
    head = ["generation", search.monitor, "index", "status", "seconds", "family", "formula", "step"]
    return [*head, *(f"theta_{i}" for i in range(width))], rows


def _best(search: SearchResult, candidates: Iterable[Candidate]) -> Candidate | None:
    """The first of the best candidates with a finite fitness."""
    valid = [c for c in candidates if math.isfinite(c.fitness)]
    return (max if search.mode == "max" else min)(valid, key=lambda c: c.fitness, default=None)


def leaders(search: SearchResult) -> list[Candidate]:
    """Return the best candidate of every generation that has one with a finite fitness."""
    generations = sorted({c.generation for c in search.history})
    best = (_best(search, (c for c in search.history if c.generation == g)) for g in generations)
    return [candidate for candidate in best if candidate is not None]


def evolved(search: SearchResult) -> list[Candidate]:
    """Return the candidates of the best family that was tried in several generations; empty if none was."""
    tried: dict[Any, set[int]] = {}
    for candidate in search.history:
        if math.isfinite(candidate.fitness):
            tried.setdefault(candidate.criterion.shape, set()).add(candidate.generation)
    champion = _best(search, (c for c in search.history if len(tried.get(c.criterion.shape, ())) > 1))
    return [c for c in search.history if champion is not None and c.criterion.shape == champion.criterion.shape]


def leader(search: SearchResult) -> Finalist | None:
    """Return the best candidate so far but the original loss, which no finals have confirmed; None if there is none."""
    found = _best(search, (c for c in search.history if not c.criterion.is_original))
    if found is None:
        return None
    return Finalist(found.criterion, "candidate", (), found.fitness, found.generation)


def final_verdict(search: SearchResult) -> Verdict | None:
    """Compare the chosen finalist with the original loss on the confirming seeds, as the search decided.

    A training of the original that diverged counts as the worst value seen. None if there is nothing to compare.
    """
    if search.best is None or search.original.errors:
        return None
    original = without_diverged(search.original, search.best, search.mode)
    if len(original) != len(search.best.fitness):
        return None
    told = verdict(search.best.fitness, original, less=search.mode == "min")
    # The search's own p counts its look at clear cases
    return replace(told, p=search.p_value) if told and told.better and search.p_value is not None else told
