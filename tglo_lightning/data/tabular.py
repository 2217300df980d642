"""Tables: one row a sample, one column the class."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

from tglo_lightning.arguments import number
from tglo_lightning.data.task import Splits, Task

BUNDLES = {"wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer, "iris": datasets.load_iris}
"""Tables that come with scikit-learn."""


class TabularDataModule(Task):
    """A table as vectors of standardised features and class indices.

    Features have mean 0 and standard deviation 1 over the training samples. A column of a CSV file that holds anything
    but numbers becomes one feature for each of its values, 1 where the row has it. Classes are numbered in sorted
    order. Training, validation and test samples have the same share of each class, as nearly as can be. The other
    arguments are those of `Task`.

    Args:
        source: `"wine"`, `"breast_cancer"` or `"iris"`, which come with scikit-learn, or a CSV file with a header.
        target: name of the class column of a CSV file.
        val_fraction: share of the samples to validate on, in (0, 1).
        test_fraction: share of the samples to test on, in (0, 1).

    Attributes:
        classes: names of the classes, in the order of their indices.
        features: names of the features.

    Raises:
        OSError: no such file.
        ValueError: an argument out of range, no such column, a row that lacks a value, fewer than 2 classes, or a class
            too rare to be in every split.
    """

    def __init__(
        self,
        *,
        source: str = "wine",
        target: str = "class",
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **options)
        self.val_fraction = number("val_fraction", val_fraction, above=0, below=1)
        self.test_fraction = number("test_fraction", test_fraction, above=0, below=1)
        if val_fraction + test_fraction >= 1:
            raise ValueError(
                f"val_fraction + test_fraction must leave a rest for training, got {val_fraction}, {test_fraction}"
            )
        for name, text in (("source", source), ("target", target)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a text, got {text!r}")
        if source in BUNDLES:
            bundle = BUNDLES[source]()
            self._table, self._labels = bundle.data, bundle.target
            self.features, self.classes = list(bundle.feature_names), [str(name) for name in bundle.target_names]
        else:
            self._table, self._labels, self.features, self.classes = _read_csv(source, target)
        self.num_classes = len(self.classes)
        self.input_shape = (len(self.features),)
        if self.num_classes < 2:
            raise ValueError(f"target {target!r} must have at least 2 classes, got {', '.join(self.classes) or 'none'}")

    def _load(self, generator: torch.Generator) -> Splits:
        train, val, test = self._rows()
        train = self._share(train)
        mean, std = self._table[train].mean(axis=0), self._table[train].std(axis=0)
        # A feature that is constant in training stays at zero there
        inputs = torch.from_numpy((self._table - mean) / np.where(std > 0, std, 1.0)).float()
        labels = torch.from_numpy(self._labels).long()
        val_labels = self._noisy(labels[val], generator)
        return (
            TensorDataset(inputs[train], self._noisy(labels[train], generator)),
            TensorDataset(inputs[val], val_labels),
            TensorDataset(inputs[test], labels[test]),
        )

    def _rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        rows = np.arange(len(self._labels))
        try:
            rest, test = train_test_split(
                rows, test_size=self.test_fraction, stratify=self._labels, random_state=self.seed
            )
            share = self.val_fraction / (1 - self.test_fraction)
            train, val = train_test_split(rest, test_size=share, stratify=self._labels[rest], random_state=self.seed)
        except ValueError as error:
            counts = np.bincount(self._labels, minlength=self.num_classes)
            raise ValueError(
                f"source: class {self.classes[counts.argmin()]!r} with {counts.min()} of {len(rows)} samples is too "
                f"rare to be in every split of val_fraction={self.val_fraction}, test_fraction={self.test_fraction}"
            ) from error
        return train, val, test


def _read_csv(source: str, target: str) -> tuple[NDArray[np.float64], NDArray[np.int64], list[str], list[str]]:
    """Features (N, F), class indices (N,), and the names of both."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"source must be a CSV file or one of {', '.join(BUNDLES)}, got {source!r}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        # Blank lines are no rows
        rows = [[value.strip() for value in row] for row in reader if row]
    if target not in header:
        raise ValueError(f"target {target!r} is no column of {source}; columns: {', '.join(header) or 'none'}")
    for position, row in enumerate(rows, start=1):
        if len(row) != len(header) or "" in row:
            raise ValueError(f"source {source}: row {position} after the header needs {len(header)} values, got {row}")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
    labels = columns.pop(target, ())
    classes = sorted(set(labels), key=_in_order)
    index = {name: i for i, name in enumerate(classes)}
    features: dict[str, NDArray[np.float64]] = {}
    for name, values in columns.items():
        features |= _encode(name, values)
    if not features:
        raise ValueError(f"source {source} must have rows, and columns other than {target!r}")
    table = np.stack(list(features.values()), axis=1)
    return table, np.array([index[name] for name in labels]), list(features), classes


def _encode(name: str, values: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """A column of numbers as it is, another as one column for each value."""
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return {f"{name}={each}": np.array([value == each for value in values], float) for each in sorted(set(values))}
    if not np.isfinite(numbers).all():
        raise ValueError(f"column {name!r} must hold finite numbers")
    return {name: numbers}


def _in_order(name: str) -> tuple[int, float, str]:
    """Numbers by size, then names."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
