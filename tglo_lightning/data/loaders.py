"""Loaders for data sets that live in memory."""

from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from tglo_lightning.arguments import integer


def batch_loader(dataset: TensorDataset, batch_size: int, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    """A loader that indexes whole batches out of tensors, many times faster than collating single samples.

    Args:
        dataset: tensors of equal length N.
        batch_size: samples a batch, at least 1; the last batch may be smaller.
        shuffle: a new order every epoch, drawn from torch's global generator, as `DataLoader(shuffle=True)` does.
    """
    batch_size = integer("batch_size", batch_size, 1)
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, sampler=BatchSampler(order, batch_size, drop_last=False), batch_size=None)
