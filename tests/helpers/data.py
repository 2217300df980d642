"""Tiny data: Gaussian blobs as vectors or as images."""

from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, random_split

CLASSES = 3
FEATURES = 8


def blobs(samples: int = 96, *, seed: int = 0, images: bool = False, soft: bool = False) -> TensorDataset:
    """Overlapping Gaussian blobs: vectors of shape ``(8,)``, or images ``(1, 8, 8)``; indices or soft labels."""
    generator = torch.Generator().manual_seed(seed)
    # The centres are the same whatever the seed, so that training and validation are one task
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(123))
    y = torch.arange(samples) % CLASSES
    x = centres[y] + 1.2 * torch.randn(samples, FEATURES, generator=generator)
    if images:
        x = x[:, None, None, :].expand(samples, 1, FEATURES, FEATURES).contiguous()
    target = 0.8 * torch.nn.functional.one_hot(y, CLASSES).float() + 0.2 / CLASSES if soft else y
    return TensorDataset(x, target)


def loader(data: Any = None, *, shuffle: bool = False, batch_size: int = 16, **kwargs: Any) -> DataLoader:
    """A loader over ``data``, by default :func:`blobs`."""
    return DataLoader(blobs() if data is None else data, batch_size=batch_size, shuffle=shuffle, **kwargs)


def loaders(**kwargs: Any) -> dict[str, Any]:
    """Arguments of ``fit``: shuffled training data and validation data."""
    return {
        "train_dataloaders": loader(blobs(seed=1, **kwargs), shuffle=True),
        "val_dataloaders": loader(blobs(48, seed=2, **kwargs)),
    }


def doubles(images: bool = False) -> dict[str, Any]:
    """:func:`loaders` in float64, with an incomplete last batch."""
    sets = []
    for samples, seed in ((72, 1), (48, 2)):
        x, y = blobs(samples, seed=seed, images=images).tensors
        sets.append(TensorDataset(x.double(), y))
    return {"train_dataloaders": loader(sets[0], shuffle=True), "val_dataloaders": loader(sets[1])}


class Stream(IterableDataset):
    """Blobs without end and without length."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        data = blobs()
        while True:
            yield data[int(torch.randint(len(data), (), generator=generator))]


def split_datamodule(api: Any, **kwargs: Any) -> Any:
    """A datamodule that splits at random in ``setup`` and works on each batch after its transfer."""

    class Split(api.LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self.batches = 0

        def setup(self, stage: str) -> None:
            self.calls += 1
            self.train, self.val = random_split(blobs(144, **kwargs), [96, 48])

        def train_dataloader(self) -> DataLoader:
            return loader(self.train, shuffle=True)

        def val_dataloader(self) -> DataLoader:
            return loader(self.val)

        def test_dataloader(self) -> DataLoader:
            return loader(blobs(48, seed=3, **kwargs))

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            x, y = batch
            if self.trainer.training:
                x = x + 0.1 * torch.randn_like(x)
            return x, y

    return Split()
