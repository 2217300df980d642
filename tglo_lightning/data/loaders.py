"""Loaders for data sets that live in memory."""

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tglo_lightning.arguments import integer


class _Batches(Dataset[tuple[Tensor, ...]]):
    """A data set of tensors, which takes whole batches out of them at once."""

    def __init__(self, dataset: TensorDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        return self.dataset[indices]


def batch_loader(dataset: TensorDataset, batch_size: int, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    """A loader that indexes whole batches out of tensors, many times faster than collating single samples.

    Args:
        dataset: tensors of equal length N.
        batch_size: samples a batch, at least 1; the last batch may be smaller.
        shuffle: a new order every epoch, drawn from torch's global generator, as `DataLoader(shuffle=True)` does.
    """
    batch_size = integer("batch_size", batch_size, 1)
    return DataLoader(_Batches(dataset), batch_size, shuffle=shuffle, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
