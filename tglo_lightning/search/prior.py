"""Where a search starts: a prior of the package, or the result of an earlier search."""

from __future__ import annotations

import json
import math
from os import PathLike, fspath
from pathlib import Path

from tglo_lightning.losses import family
from tglo_lightning.losses.priors import Prior
from tglo_lightning.search.result import SearchResult
from tglo_lightning.search.space import FamilySpace, ShapeSpace, Space, StepSpace, TaylorSpace


def prior_space(prior: Prior | SearchResult | str | PathLike[str] | None) -> Space:
    """Return the space around a prior: one of the package by its name, an object, or the path of its file.

    Of a result, or the path of its ``search.json``, the best loss becomes the centre, in the space of its family.
    ``None`` stands for TaylorGLO losses around 0, as published, and the learning rate.

    Raises:
        OSError, TypeError, ValueError: it is none of these, or a result of several losses or without a best one.
    """
    if prior is None:
        return TaylorSpace(step=True)
    if isinstance(prior, str | PathLike) and fspath(prior).endswith(".json") and _is_result(Path(prior)):
        prior = SearchResult.load(prior)
    if not isinstance(prior, SearchResult):
        return ShapeSpace(prior)
    if prior.best is None or len(prior.best.criterion.losses) > 1:
        what = "no loss that could be trained" if prior.best is None else "several losses"
        raise ValueError(f"`prior` must hold the result of one loss; this one holds {what}.")
    criterion = prior.best.criterion
    if not criterion.losses:
        return StepSpace().around([math.log(criterion.step)], 1.0)
    spec = criterion.losses[0]
    if spec.family == "taylorglo":
        return ShapeSpace(prior.to_prior())
    axes = family(spec.family).axes
    if not axes:
        raise ValueError(f"`prior` is {criterion.formula}, which has no parameters to start from.")
    x = [axis.encode(value) for axis, value in zip(axes, spec.theta, strict=False)]
    return FamilySpace(spec.family).around([*x, math.log(criterion.step)], 0.5)


def prior_name(prior: Prior | SearchResult | str | PathLike[str] | None) -> str:
    """Return what a prior is called; an empty string for none.

    >>> prior_name("shared"), prior_name("runs/search.json")
    ('shared', 'runs/search.json')
    """
    if isinstance(prior, SearchResult):
        return "an earlier result"
    return prior.name if isinstance(prior, Prior) else fspath(prior or "")


def _is_result(path: Path) -> bool:
    try:
        return "history" in json.loads(path.read_bytes())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds neither a prior nor the result of a search: {error}") from error
