"""Shapes that were found on many tasks at once, as data: where a search starts, and how it was found.

A file ``NAME.json`` in this folder is a prior; ``recipes/prior`` makes such files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from tglo_lightning.arguments import number


@dataclass(frozen=True)
class Prior:
    """A loss to start from, without its scale.

    Attributes:
        name: where it comes from: the name of a file of the package, a path, or a search.
        t: shape, ``2 K - 3`` numbers for order ``K``, see :func:`~tglo_lightning.theory.to_shape`.
        spread: standard deviation of each of them for the first draws of a search.
        step: factor on the learning rate to start at.
        provenance: what it was found with: tasks, seeds, versions, figures on held-out tasks.
    """

    name: str
    t: tuple[float, ...]
    spread: tuple[float, ...]
    step: float = 1.0
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what a file of a prior holds."""
        centre = {"t": list(self.t), "step": self.step}
        return {"name": self.name, "centre": centre, "spread": list(self.spread), "provenance": self.provenance}

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Prior:
        """Read a file of a prior; an ``OSError`` if it cannot be read, a ``ValueError`` if it holds none."""
        try:
            values = json.loads(Path(path).read_bytes())
            centre = values["centre"]
            t, spread = ([number("t", value) for value in list_] for list_ in (centre["t"], values["spread"]))
            if len(t) % 2 == 0 or len(spread) != len(t):
                raise ValueError(f"{len(t)} numbers in `t`, {len(spread)} in `spread`")
            step = number("step", centre.get("step", 1.0), above=0)
            return cls(values["name"], tuple(t), tuple(spread), step, values.get("provenance", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no prior: {type(error).__name__}: {error}") from error


@lru_cache
def prior(name: str = "shared") -> Prior:
    """Return the prior of the package called ``name``; a ``ValueError`` if there is none.

    >>> prior().t
    (0.45, 1.01, 1.54)
    """
    folder = Path(__file__).parent
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise ValueError(f"`prior` must be one of {', '.join(map(repr, known))}, or the path of a file, got {name!r}.")
    return Prior.load(folder / f"{name}.json")


def as_prior(given: Prior | str | PathLike[str]) -> Prior:
    """Return a prior: an object, the name of one of the package, or the path of a file that ends in ``.json``.

    Raises:
        OSError, TypeError, ValueError: it is none of these.
    """
    if isinstance(given, Prior):
        return given
    if not isinstance(given, str | PathLike):
        raise TypeError(f"`prior` must be the name or the file of a prior, got {given!r}.")
    return Prior.load(given) if str(given).endswith(".json") else prior(str(given))
