"""Reading and writing in directories that somebody else may have made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

__all__ = ["load_yaml", "regular_target"]

# A config of `tglo-train` has 4 kB, Hydra's settings beside it 10, and neither more than 6 levels
MOST_BYTES = 100_000
MOST_LEVELS = 50


def load_yaml(path: str | os.PathLike[str]) -> Any:
    """Return what a YAML file holds: strings, numbers, lists and dicts.

    Files that could cost far more time or memory than their size are rejected: long or deeply nested ones, and those
    with aliases, which a few lines multiply into billions of values.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a regular file, too large, has aliases or is not YAML.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file.")
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES:,} bytes.")
    try:
        level = 0
        for event in yaml.parse(content, Loader=yaml.SafeLoader):
            level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or level > MOST_LEVELS:
                raise yaml.YAMLError(f"it has aliases, or more than {MOST_LEVELS} levels")
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}.") from None


def regular_target(path: Path) -> Path:
    """Return `path`, a file to write, unless it is a symbolic link: writing would replace what the link points to.

    Raises:
        ValueError: it is a link.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link to {os.readlink(path)}; remove it, or choose another file.")
    return path
