"""Labelled images in the layout of the Hugging Face hub, decoded once."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tglo_lightning.untrusted import load_checkpoint

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")


def load_images(
    source: str, split: str, cache_dir: str | Path | None = None, *, subset: str | None = None
) -> tuple[Tensor, Tensor]:
    """Images and labels of one split of a data set.

    The decoded images are kept in a file below ``cache_dir``; only the first call needs the network or decodes.

    Args:
        source: name on the hub, such as ``"ylecun/mnist"``, or a folder with the same parquet files.
        split: ``"train"`` or ``"test"``.
        cache_dir: folder of the decoded images, made if need be; by default ``tglo_lightning`` below ``HF_HOME``, which
            is ``~/.cache/huggingface`` unless set.
        subset: configuration of the data set on the hub, where it has several; in a folder, the subfolder of that
            name if there is one.

    Returns:
        Images, uint8 of shape ``(N, C, H, W)``, and labels, int64 of shape ``(N,)``. Images come from a column
        ``image`` or ``img``, labels from ``label`` or ``fine_label``.

    Raises:
        OSError: the data set cannot be read: no network, no such name or folder.
        ImportError: ``datasets`` or ``pillow`` is not installed.
        ValueError: the data set has no such split, or no image or label column.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if subset is not None:
            folder = folder / subset if (folder / subset).is_dir() else folder
        source, subset = str(folder), None
    cache = _cache_file(source, split, cache_dir, subset)
    with suppress(OSError, ValueError, KeyError, AttributeError):  # there is none, or it is damaged
        stored = load_checkpoint(cache)
        return stored["images"], stored["labels"].long()
    images, labels = _decode(source, split, subset)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when complete, so that no other process reads half a file
        partial = cache.with_suffix(f".{os.getpid()}")
        torch.save({"images": images, "labels": labels}, partial)
        partial.replace(cache)
    except OSError as error:
        warnings.warn(f"Decoded images cannot be kept, choose another cache_dir: {error}", stacklevel=2)
    return images, labels.long()


def load_columns(source: str, split: str, names: Sequence[str]) -> dict[str, Tensor]:
    """Columns of integers of one split of a data set, those of ``names`` that it has; see :func:`load_images`."""
    dataset = _dataset(source, None, split)
    return {name: torch.tensor(dataset[name][:]).long() for name in names if name in dataset.column_names}


def _dataset(source: str, subset: str | None, split: str) -> Any:
    """One split, its images not yet decoded."""
    try:
        import PIL.Image  # noqa: F401  (datasets decodes with it)
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(f"Reading {source} needs: pip install 'tglo-lightning[data]'") from error
    try:
        return load_dataset(source, subset, split=split)
    except OSError as error:
        raise OSError(
            f"Cannot read {source}. Without a network, give a folder with its parquet files: source=FOLDER. ({error})"
        ) from error


def _decode(source: str, split: str, subset: str | None) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,), both uint8."""
    dataset = _dataset(source, subset, split)
    column = next((name for name in IMAGE_COLUMNS if name in dataset.column_names), None)
    label = next((name for name in LABEL_COLUMNS if name in dataset.column_names), None)
    if column is None or label is None:
        raise ValueError(
            f"source {source} must have a column {' or '.join(map(repr, IMAGE_COLUMNS))} and a column "
            f"{' or '.join(map(repr, LABEL_COLUMNS))}, got {', '.join(dataset.column_names)}"
        )
    arrays = np.stack([np.asarray(image) for image in dataset[column]])
    images = torch.from_numpy(arrays)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(dataset[label][:], dtype=torch.uint8)


def _cache_file(source: str, split: str, cache_dir: str | Path | None, subset: str | None) -> Path:
    """A name that changes with the source, and with the files of a local one."""
    folder = Path(source)
    key = source if subset is None else f"{source} {subset}"
    if folder.is_dir():
        files = sorted(folder.rglob("*.parquet"))
        stats = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        key = f"{folder.resolve()} {stats}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    if cache_dir is None:  # beside the cache of `datasets`, found as that is found
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
        cache_dir = Path(os.environ.get("HF_HOME", base)).expanduser() / "tglo_lightning"
    return Path(cache_dir) / f"{folder.name}-{split}-{digest}.pt"
