"""What the fit after a search leaves beside the search's files, for its report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Fit", "fit_path"]

SEARCH = "search"


def fit_path(search: Path) -> Path:
    """The file beside the journal or the result of a search: ``fit.json``, or ``NAME-fit.json`` for ``NAME.jsonl``."""
    return search.with_name("fit.json" if search.stem == SEARCH else f"{search.stem}-fit.json")


@dataclass
class Fit:
    """The fit that followed a search.

    Attributes:
        loss: which loss it trained with, ``"metalearned"`` or ``"original"``.
        curves: ``{metric: [one value an epoch]}``.
        attraction: files of ``AttractionMonitor`` by name.
        limits: ``max_epochs`` and ``max_steps`` of its Trainer; None where the file is of an older version.
        data: names of the arguments that handed it the data; None likewise.
    """

    loss: str
    curves: dict[str, list[float | None]] = field(default_factory=dict)
    attraction: dict[str, Path] = field(default_factory=dict)
    limits: dict[str, int | None] | None = None
    data: list[str] | None = None

    def save(self, path: Path) -> None:
        """Write it; other files are named from there, so that their folder can be moved as a whole."""
        places = {name: os.path.relpath(file, path.parent) for name, file in self.attraction.items()}
        values: dict[str, Any] = {"loss": self.loss, "curves": self.curves, "attraction": places}
        values |= {"limits": self.limits, "data": self.data}
        path.write_text(json.dumps(values, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Fit:
        """What :meth:`save` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        places: Mapping[str, str] = values["attraction"]
        return cls(
            values["loss"],
            {str(metric): list(curve) for metric, curve in values["curves"].items()},
            {name: path.parent / place for name, place in places.items()},
            values.get("limits"),
            values.get("data"),
        )
