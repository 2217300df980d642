"""A small data set in the layout of the Hugging Face hub."""

from pathlib import Path

import numpy as np
import pytest


def write_hub(folder: Path, *, train: int = 60, test: int = 30, column: str = "image") -> Path:
    """Parquet files of random 28 x 28 images, label ``i % 10`` for the image ``i``. Skips without ``datasets``."""
    datasets = pytest.importorskip("datasets")
    images = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    features = datasets.Features(
        {column: datasets.Image(), "label": datasets.ClassLabel(names=[str(i) for i in range(10)])}
    )
    (folder / "mnist").mkdir(parents=True)
    for split, size in (("train", train), ("test", test)):
        pixels = random.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        rows = {column: [images.fromarray(each) for each in pixels], "label": [i % 10 for i in range(size)]}
        data = datasets.Dataset.from_dict(rows, features=features)
        data.to_parquet(folder / "mnist" / f"{split}-00000-of-00001.parquet")
    return folder
