"""Names and places of a search's files: the journal while it runs, the result beside it afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from tglo_lightning.search.journal import Journal, difference
from tglo_lightning.search.result import SearchResult

# Below the run's directory
FOLDER = "tglo"
JOURNAL = "search.jsonl"


def default_journal(root: Path, digest: str) -> Path:
    """The journal of a search in the directory ``root``; searches that differ, by their ``digest``, never share one."""
    return root / FOLDER / digest / JOURNAL


def free_journal(journal: Path) -> Path:
    """``journal``, or the first like it, with a number behind its folder's name, that does not exist yet."""
    number, path = 1, journal
    while os.path.exists(path):
        number += 1
        path = journal.parent.with_name(f"{journal.parent.name}-{number}") / journal.name
    return path


def result_path(journal: Path) -> Path:
    """Where the result of the search with this journal is written: ``search.json`` beside ``search.jsonl``."""
    return journal.with_suffix(".json")


def journal_path(journal: str | PathLike[str] | None) -> Path | None:
    """Return the path of a journal that a user named.

    Raises:
        TypeError, ValueError: it cannot be the path of a journal.
    """
    if journal is None:
        return None
    if not isinstance(journal, str | PathLike) or not str(journal):
        raise TypeError(f"`journal` must be the path of a file, got {journal!r}.")
    try:
        path = Path(journal).expanduser()
    except RuntimeError as error:
        raise ValueError(f"`journal`, {str(journal)!r}: {error}") from None
    if path.suffix == ".json":
        raise ValueError(f"`journal` must not end in .json, for the result goes there; got {str(journal)!r}.")
    if os.path.isdir(path):
        raise ValueError(f"`journal` must be a file, and {str(journal)!r} is a directory: {path / JOURNAL}?")
    return path


def is_finished(journal: Path, asked: Mapping[str, Any] | None = None) -> bool:
    """Whether the result beside the journal is that of a search that came to its end, with the settings ``asked``."""
    try:
        result = SearchResult.load(result_path(journal))
    except (OSError, ValueError):
        return False
    return result.finished and all(result.settings.get(name) == value for name, value in (asked or {}).items())


def interrupted_neighbour(journal: Path, header: Mapping[str, Any]) -> tuple[Path, str] | None:
    """The latest unfinished search beside a new one, and what differs; ``None`` if there is none."""
    try:
        paths = [path for path in journal.parent.parent.glob(f"*/{journal.name}") if path != journal]
    except OSError:  # such as a name that is too long
        return None
    # Of another module or loss nobody expects that it goes on
    same = [p for p in paths if all(Journal.header(p).get(key) == header[key] for key in ("module", "loss"))]
    unfinished = [path for path in same if not is_finished(path)]
    if not unfinished:
        return None
    path = max(unfinished, key=lambda path: path.stat().st_mtime)
    return path, difference(header, {k: v for k, v in Journal.header(path).items() if k != "journal"})
