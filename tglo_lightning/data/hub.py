"""Labelled images in the layout of the Hugging Face hub, decoded once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["load_images"]

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMN = "label"


def load_images(source: str, split: str, cache_dir: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Images and labels of one split of a data set.

    The decoded images are kept in a file below ``cache_dir``; only the first call needs the network or decodes.

    Args:
        source: name on the hub, such as ``"ylecun/mnist"``, or a folder with the same parquet files.
        split: ``"train"`` or ``"test"``.
        cache_dir: folder of the decoded images, made if need be; ``~/.cache/tglo_lightning`` by default.

    Returns:
        Images, uint8 of shape ``(N, C, H, W)``, and labels, int64 of shape ``(N,)``.

    Raises:
        OSError: the data set cannot be read: no network, no such name or folder.
        ImportError: ``datasets`` or ``pillow`` is not installed.
        ValueError: the data set has no image or label column.
    """
    cache = _cache_file(source, split, cache_dir)
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        return stored["images"], stored["labels"].long()
    try:
        import PIL.Image  # noqa: F401  (datasets decodes with it)
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(f"Reading {source} needs: pip install 'tglo-lightning[data]'") from error
    try:
        dataset = load_dataset(source, split=split)
    except OSError as error:
        raise OSError(f"Cannot read {source}; a local copy is read with `source=FOLDER`. {error}") from error
    column = next((name for name in IMAGE_COLUMNS if name in dataset.column_names), None)
    if column is None or LABEL_COLUMN not in dataset.column_names:
        raise ValueError(
            f"{source} must have a column {' or '.join(map(repr, IMAGE_COLUMNS))} and a column {LABEL_COLUMN!r}, got "
            f"{', '.join(dataset.column_names)}."
        )
    arrays = np.stack([np.asarray(image) for image in dataset[column]])
    images = torch.from_numpy(arrays)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(dataset[LABEL_COLUMN][:], dtype=torch.uint8)
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete, so that no other process reads half a file
    partial = cache.with_suffix(f".{os.getpid()}")
    torch.save({"images": images, "labels": labels}, partial)
    partial.replace(cache)
    return images, labels.long()


def _cache_file(source: str, split: str, cache_dir: str | Path | None) -> Path:
    """A name that changes with the source, and with the files of a local one."""
    folder = Path(source)
    key = source
    if folder.is_dir():
        files = sorted(folder.rglob("*.parquet"))
        stats = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        key = f"{folder.resolve()} {stats}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    root = Path.home() / ".cache" / "tglo_lightning" if cache_dir is None else Path(cache_dir)
    return root / f"{folder.name}-{split}-{digest}.pt"
