"""Handwritten digits, 8 by 8 pixels, embedded in scikit-learn: real data without a download."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from tglo_lightning.arguments import integer
from tglo_lightning.data.task import Splits, Task

_TOTAL = 1797
_PIXEL_MAX = 16.0


class DigitsDataModule(Task):
    """Scikit-learn's 1797 digits as float images of shape (1, 8, 8) with pixels in [0, 1] and labels 0 to 9.

    A random split into training, validation and test samples; what the first two leave is the test set. The other
    arguments are those of `Task`; `BatchAugmentation(crop_padding=1)` suits these images.

    Args:
        train_size: training samples.
        val_size: validation samples.

    Raises:
        ValueError: an argument out of range, or nothing left to test on.
    """

    num_classes = 10
    input_shape = (1, 8, 8)

    def __init__(
        self,
        *,
        train_size: int = 1000,
        val_size: int = 400,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **options)
        self.train_size, self.val_size = integer("train_size", train_size, 1), integer("val_size", val_size, 1)
        if train_size + val_size >= _TOTAL:
            raise ValueError(f"train_size + val_size must be below the {_TOTAL} digits, got {train_size} + {val_size}")

    def _load(self, generator: torch.Generator) -> Splits:
        pixels, targets = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels).float().div(_PIXEL_MAX).reshape(-1, *self.input_shape)
        labels = torch.from_numpy(targets).long()
        order = torch.randperm(len(labels), generator=generator)
        train, val, test = order.tensor_split([self.train_size, self.train_size + self.val_size])
        return (
            # Noise in all of them, so that that of validation is the same whatever share is trained on
            TensorDataset(self._share(images[train]), self._share(self._noisy(labels[train], generator))),
            TensorDataset(images[val], self._noisy(labels[val], generator)),
            TensorDataset(images[test], labels[test]),
        )
