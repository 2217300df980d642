"""MNIST: handwritten digits, 28 by 28 pixels, from the Hugging Face hub or a local copy."""

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tglo_lightning.data.hub import load_images
from tglo_lightning.data.loaders import batch_loader
from tglo_lightning.data.noise import flip_labels

_TRAIN = 60_000
_PIXEL_MAX = 255.0


class MNISTDataModule(pl.LightningDataModule):
    """MNIST as float images of shape (1, 28, 28) with pixels in [0, 1] and labels 0 to 9.

    Validation samples are held out of the 60,000 official training samples by a random permutation; the 10,000 official
    test samples are the test set. Split and label noise depend on `seed` alone.

    Args:
        source: name on the hub, or a folder with the same files. Read with Hugging Face `datasets`
            (`pip install 'tglo-lightning[data]'`).
        val_size: validation samples.
        train_fraction: share of the other training samples to train on, in (0, 1]; a smaller share is a subset of a
            larger one.
        label_noise: share of training *and* validation labels replaced by a wrong class (see `flip_labels`), in
            [0, 1]. Test labels stay clean.
        batch_size: samples a training batch. Validation and test are read in batches of up to 1024.
        seed: of the split and the noise, not negative.
        cache_dir: folder for the decoded images; `~/.cache/tglo_lightning` by default.

    Raises:
        ValueError: an argument out of range, or nothing left to train on.
    """

    num_classes = 10
    input_shape = (1, 28, 28)

    def __init__(
        self,
        *,
        source: str = "ylecun/mnist",
        val_size: int = 5000,
        train_fraction: float = 1.0,
        label_noise: float = 0.0,
        batch_size: int = 128,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("val_size", val_size), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < train_fraction <= 1:
            raise ValueError(f"train_fraction must lie in (0, 1], got {train_fraction}")
        if round(train_fraction * (_TRAIN - val_size)) < 1:
            raise ValueError(f"val_size and train_fraction leave nothing to train on, got {val_size}, {train_fraction}")
        if not 0 <= label_noise <= 1:
            raise ValueError(f"label_noise must lie in [0, 1], got {label_noise}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.source, self.cache_dir = source, cache_dir
        self.val_size, self.train_fraction = val_size, train_fraction
        self.label_noise, self.batch_size, self.seed = label_noise, batch_size, seed
        self._splits: tuple[TensorDataset, TensorDataset, TensorDataset] | None = None

    def prepare_data(self) -> None:
        """Fetch and decode the images, where that was not done before."""
        for split in ("train", "test"):
            load_images(self.source, split, self.cache_dir)

    def setup(self, stage: str | None = None) -> None:
        """Split the images and add the label noise, once; `stage` makes no difference."""
        if self._splits is not None:
            return
        images, labels = load_images(self.source, "train", self.cache_dir)
        generator = torch.Generator().manual_seed(self.seed)
        val, train = torch.randperm(len(labels), generator=generator).tensor_split([self.val_size])
        train = train[: round(self.train_fraction * len(train))]

        def noisy(rows: Tensor) -> TensorDataset:
            return _dataset(images[rows], flip_labels(labels[rows], self.num_classes, self.label_noise, generator))

        # First, so that the validation set is the same whatever share is trained on
        validation = noisy(val)
        self._splits = noisy(train), validation, _dataset(*load_images(self.source, "test", self.cache_dir))

    def _split(self, index: int) -> TensorDataset:
        if self._splits is None:
            self.setup()
            assert self._splits is not None
        return self._splits[index]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (images (B, 1, 28, 28), labels (B,)), in a new order every epoch; labels noisy."""
        return batch_loader(self._split(0), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (images (B, 1, 28, 28), labels (B,)); labels noisy."""
        return batch_loader(self._split(1), 1024)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of (images (B, 1, 28, 28), labels (B,)); labels clean."""
        return batch_loader(self._split(2), 1024)


def _dataset(images: Tensor, labels: Tensor) -> TensorDataset:
    return TensorDataset(images.float().div_(_PIXEL_MAX), labels)
