"""What the fit after a search leaves beside the search's files, for its report."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from tglo_lightning.untrusted import NUMBER, load_json, write_whole


def fit_path(search: Path) -> Path:
    """The file beside the journal or the result of a search: ``fit.json``, or ``NAME-fit.json`` for ``NAME.jsonl``."""
    return search.with_name("fit.json" if search.stem == "search" else f"{search.stem}-fit.json")


@dataclass
class Fit:
    """The fit that followed a search.

    Attributes:
        loss: which loss it trained with, ``"metalearned"`` or ``"original"``.
        curves: ``{metric: [one value an epoch]}``.
        attraction: files of ``AttractionMonitor`` by name.
    """

    loss: str
    curves: dict[str, list[float | None]] = field(default_factory=dict)
    attraction: dict[str, Path] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON; other files are named from there, so that their folder can be moved as a whole."""
        places = {name: os.path.relpath(file, path.parent) for name, file in self.attraction.items()}
        write_whole(path, json.dumps({**vars(self), "attraction": places}, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Fit:
        """Read a file that :meth:`save` wrote.

        Raises:
            OSError, ValueError: it cannot be read, or holds something else.
        """
        values = load_json(path, {"loss": str, "curves": {...: [(*NUMBER, None)]}, "attraction": {...: str}})
        attraction = {name: path.parent / place for name, place in values["attraction"].items()}
        return cls(values["loss"], values["curves"], attraction)
