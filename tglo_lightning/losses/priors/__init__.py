"""Shapes that were found on many tasks at once, as data: where a search starts, and how it was found.

A file ``NAME.json`` in this folder is a prior; ``recipes/prior`` makes such files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = ["Prior", "prior"]


@dataclass(frozen=True)
class Prior:
    """A loss to start from, without its scale.

    Attributes:
        name: name of the file.
        order: order ``K`` of the polynomial.
        t: shape, ``2 K - 3`` numbers, see :func:`~tglo_lightning.theory.to_shape`.
        spread: standard deviation of each of them for the first draws of a search.
        provenance: what it was found with: tasks, seeds, versions, figures on held-out tasks.
    """

    name: str
    order: int
    t: tuple[float, ...]
    spread: tuple[float, ...]
    provenance: dict[str, Any]


@lru_cache
def prior(name: str = "shared") -> Prior:
    """Return the prior called ``name``.

    Raises:
        ValueError: no prior of this name.

    >>> prior().order
    3
    """
    entries = (entry for entry in files(__name__).iterdir() if entry.name.endswith(".json"))
    known = {entry.name.removesuffix(".json"): entry for entry in entries}
    if name not in known:
        raise ValueError(f"`name` must be one of {', '.join(map(repr, sorted(known)))}, got {name!r}.")
    values = json.loads(known[name].read_text(encoding="utf-8"))
    return Prior(name, values["order"], tuple(values["centre"]["t"]), tuple(values["spread"]), values["provenance"])
