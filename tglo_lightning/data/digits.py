"""Handwritten digits, 8 by 8 pixels, embedded in scikit-learn: real data without a download."""

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tglo_lightning.data.loaders import batch_loader
from tglo_lightning.data.noise import flip_labels

_TOTAL = 1797
_PIXEL_MAX = 16.0


class DigitsDataModule(pl.LightningDataModule):
    """Scikit-learn's 1797 digits as float images of shape (1, 8, 8) with pixels in [0, 1] and labels 0 to 9.

    A random split into training, validation and test samples; what the first two leave is the test set. Split and label
    noise depend on `seed` alone: every training sees the same task, whatever its own seed.

    Args:
        train_size: training samples.
        val_size: validation samples.
        label_noise: share of training *and* validation labels replaced by a wrong class (see `flip_labels`), in
            [0, 1]. Test labels stay clean.
        batch_size: samples a training batch. Validation and test are read in batches of up to 1024.
        seed: of the split and the noise, not negative.

    Raises:
        ValueError: a size below 1, nothing left to test on, or `label_noise`, `batch_size` or `seed` out of range.
    """

    num_classes = 10
    input_shape = (1, 8, 8)

    def __init__(
        self,
        *,
        train_size: int = 1000,
        val_size: int = 400,
        label_noise: float = 0.0,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("train_size", train_size), ("val_size", val_size), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if train_size + val_size >= _TOTAL:
            raise ValueError(
                f"train_size + val_size must be below {_TOTAL}, the number of digits, got {train_size} + {val_size}"
            )
        if not 0 <= label_noise <= 1:
            raise ValueError(f"label_noise must lie in [0, 1], got {label_noise}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.train_size, self.val_size = train_size, val_size
        self.label_noise, self.batch_size, self.seed = label_noise, batch_size, seed
        self._splits: tuple[TensorDataset, TensorDataset, TensorDataset] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Split the digits and add the label noise, once; `stage` makes no difference."""
        if self._splits is not None:
            return
        pixels, targets = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels).float().div(_PIXEL_MAX).reshape(-1, *self.input_shape)
        labels = torch.from_numpy(targets).long()
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(labels), generator=generator)
        train, val, test = order.tensor_split([self.train_size, self.train_size + self.val_size])

        def noisy(rows: Tensor) -> Tensor:
            return flip_labels(labels[rows], self.num_classes, self.label_noise, generator)

        self._splits = (
            TensorDataset(images[train], noisy(train)),
            TensorDataset(images[val], noisy(val)),
            TensorDataset(images[test], labels[test]),
        )

    def _split(self, index: int) -> TensorDataset:
        if self._splits is None:
            self.setup()
            assert self._splits is not None
        return self._splits[index]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (images (B, 1, 8, 8), labels (B,)), in a new order every epoch; labels noisy."""
        return batch_loader(self._split(0), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (images (B, 1, 8, 8), labels (B,)); labels noisy."""
        return batch_loader(self._split(1), 1024)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (images (B, 1, 8, 8), labels (B,)); labels clean."""
        return batch_loader(self._split(2), 1024)
