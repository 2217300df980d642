"""What the reference tasks have in common: three splits in memory, read in batches, augmented in batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tglo_lightning.arguments import integer, number
from tglo_lightning.data.loaders import batch_loader
from tglo_lightning.data.noise import flip_labels
from tglo_lightning.wording import counted

Augmentation = Callable[..., tuple[Tensor, Tensor]]
Splits = tuple[TensorDataset, TensorDataset, TensorDataset]


class Task(pl.LightningDataModule, ABC):
    """Base of the reference tasks: classification of samples that fit into memory.

    Splits and label noise depend on `seed` alone: every training sees the same task, whatever its own seed. Training
    batches are augmented as a whole, on the device, after their transfer; so an evaluator that trains many candidates
    at once augments each batch once for all of them.

    Attributes:
        input_shape: shape of one sample.
        mean: mean of the inputs, one number a channel, for the `Normalize` layer in front of a network; None if they
            are to go in as they are. Batches themselves are not normalised: pixels stay in [0, 1].
        std: standard deviation, as `mean`.

    Args:
        train_fraction: share of the training samples to train on, in (0, 1]; a smaller share is a subset of a larger.
        label_noise: share of training *and* validation labels replaced by a wrong class (see `flip_labels`), in
            [0, 1]. Test labels stay clean.
        batch_size: samples a training batch. Validation and test are read in batches of up to 1024.
        seed: of the splits and the noise, not negative.
        augment: maps a training batch to another, called as `augment(inputs, labels, num_classes=..., fill=mean)`.

    Raises:
        ValueError: an argument out of range.
    """

    num_classes: int
    input_shape: tuple[int, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __init__(
        self,
        *,
        train_fraction: float = 1.0,
        label_noise: float = 0.0,
        batch_size: int = 128,
        seed: int = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        if augment is not None and not callable(augment):
            raise TypeError(f"augment must be a function of a batch, such as BatchAugmentation(), got {augment!r}")
        self.train_fraction = number("train_fraction", train_fraction, above=0, most=1)
        self.label_noise = number("label_noise", label_noise, least=0, most=1)
        self.batch_size = integer("batch_size", batch_size, 1)
        self.seed = integer("seed", seed, 0)
        self.augment = augment
        self._splits: Splits | None = None

    @abstractmethod
    def _load(self, generator: torch.Generator) -> Splits:
        """Training, validation and test samples; all that is random in them comes from `generator`."""

    def _noisy(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return flip_labels(labels, self.num_classes, self.label_noise, generator)

    def _share(self, rows: Any) -> Any:
        """The rows to train on, of all rows for training."""
        kept = rows[: round(self.train_fraction * len(rows))]
        if not len(kept):
            raise ValueError(
                f"train_fraction={self.train_fraction} of {counted(len(rows), 'sample')} leaves nothing to train on"
            )
        return kept

    def setup(self, stage: str | None = None) -> None:
        """Make the splits, once; `stage` makes no difference."""
        if self._splits is None:
            self._splits = self._load(torch.Generator().manual_seed(self.seed))

    def _split(self, index: int) -> TensorDataset:
        self.setup()
        assert self._splits is not None
        return self._splits[index]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (inputs (B, *input_shape), labels (B,)), in a new order every epoch; labels noisy."""
        return batch_loader(self._split(0), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (inputs (B, *input_shape), labels (B,)); labels noisy."""
        return batch_loader(self._split(1), 1024)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (inputs (B, *input_shape), labels (B,)); labels clean."""
        return batch_loader(self._split(2), 1024)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a training batch; leave all others as they are."""
        if self.augment is None or self.trainer is None or not self.trainer.training:
            return batch
        inputs, labels = batch
        return self.augment(inputs, labels, num_classes=self.num_classes, fill=self.mean)
