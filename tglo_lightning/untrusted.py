"""Reading and writing in directories that somebody else may have made."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

# A config of `tglo-train` has 4 kB, Hydra's settings beside it 10, and neither more than 6 levels
MOST_BYTES = 100_000
MOST_LEVELS = 50
# A finite number, for `load_json`
NUMBER = (int, float)


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


def load_checkpoint(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """Return what a checkpoint holds, on the CPU, read with ``weights_only=True``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, holds anything that would run code, or no dict.
    """
    import torch

    _not_special(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes of its parser
        raise ValueError(f"{path} is not a checkpoint that can be read with weights_only=True.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a checkpoint: it holds a {type(content).__name__}.")
    return content


def regular_target(path: Path) -> Path:
    """Return `path`, a file to write; a `ValueError` for a symbolic link: writing would replace what it points to."""
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link to {os.readlink(path)}; remove it, or choose another file.")
    return path


def load_json(path: str | os.PathLike[str], shape: Any = dict) -> Any:
    """Return what a JSON file holds.

    It must have the ``shape``: a type or a tuple of types; ``(shape, None)``, which may be null; ``[shape]``, a list
    whose entries have this shape; ``{"name": shape}``, a dict with at least these keys; ``{...: shape}``, one whose
    values all have this shape. Numbers must be finite.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, nested too deep, or of another shape.
    """
    try:
        _not_special(path)
        value = json.loads(Path(path).read_bytes())
        check_shape(value, shape)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def _not_special(path: str | os.PathLike[str]) -> None:
    # A pipe would be waited for, a device never ends
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is not a file")


def check_shape(value: Any, shape: Any, name: str = "it") -> None:
    """Check a value that came from a file; for shapes see :func:`load_json`.

    Raises:
        ValueError: it has another shape.
    """
    if isinstance(shape, tuple) and None in shape:
        if value is None:
            return
        shape = tuple(kind for kind in shape if kind is not None)
        shape = shape[0] if len(shape) == 1 else shape
    if isinstance(shape, dict):
        check_shape(value, dict, name)
        for key, expected in shape.items():
            if key is not ... and key not in value:
                raise ValueError(f"{name} has no {key!r}")
            for found in [key] if key is not ... else value:
                check_shape(value[found], expected, f"{name}.{found}"[:80])
    elif isinstance(shape, list):
        check_shape(value, list, name)
        for index, entry in enumerate(value):
            check_shape(entry, shape[0], f"{name}[{index}]"[:80])
    else:
        if not isinstance(value, shape):
            raise ValueError(f"{name} is a {type(value).__name__}")
        if isinstance(value, NUMBER) and not abs(value) < 2**63:  # nor is NaN
            raise ValueError(f"{name} is too large a number, or none")


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file at once: a reader sees the old one or the new one, and a crash leaves no half of it.

    The folder is made if need be. A symbolic link in its place is replaced; what it points to stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    draft.unlink(missing_ok=True)
    try:
        with open(draft, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> Path:
    """Write a compressed ``.npz`` file at once."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return write_whole(Path(path), file.getvalue())


def load_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arrays of an ``.npz`` file, none of which is code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # what zipfile, zlib and numpy have for a damaged archive
        raise ValueError(f"{path} is no file of arrays: {error}") from error
