"""Small data sets in the layout of the Hugging Face hub."""

from pathlib import Path

import numpy as np
import pytest


def write_hub(
    folder: Path,
    *,
    train: int = 60,
    test: int = 30,
    column: str = "image",
    label: str = "label",
    shape: tuple[int, ...] = (28, 28),
    classes: int = 10,
    subfolder: str = "mnist",
) -> Path:
    """Parquet files of random images, label ``i % classes`` for the image ``i``. Skips without ``datasets``."""
    datasets = pytest.importorskip("datasets")
    images = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    features = datasets.Features(
        {column: datasets.Image(), label: datasets.ClassLabel(names=[str(i) for i in range(classes)])}
    )
    (folder / subfolder).mkdir(parents=True)
    for split, size in (("train", train), ("test", test)):
        pixels = random.integers(0, 256, (size, *shape), dtype=np.uint8)
        rows = {column: [images.fromarray(each) for each in pixels], label: [i % classes for i in range(size)]}
        data = datasets.Dataset.from_dict(rows, features=features)
        data.to_parquet(folder / subfolder / f"{split}-00000-of-00001.parquet")
    return folder


def write_human_labels(folder: Path, **columns: list[int]) -> str:
    """A parquet file of labels; its folder as text. Skips without ``datasets``."""
    folder.mkdir()
    pytest.importorskip("datasets").Dataset.from_dict(columns).to_parquet(folder / "train-00000-of-00001.parquet")
    return str(folder)


# What the official data sets look like
LAYOUTS = {
    "mnist": {"subfolder": "mnist"},
    "fashion_mnist": {"subfolder": "fashion_mnist"},
    "cifar10": {"shape": (32, 32, 3), "column": "img", "subfolder": "plain_text"},
    "cifar100": {
        "shape": (32, 32, 3),
        "column": "img",
        "label": "fine_label",
        "classes": 100,
        "train": 200,
        "subfolder": "cifar100",
    },
    "svhn": {"shape": (32, 32, 3), "subfolder": "cropped_digits"},
}
