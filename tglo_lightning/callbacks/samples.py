"""A fixed random set of training samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler

from tglo_lightning.module.loaders import fresh_iterators

# Without gradients a batch needs far less memory than it does in training
LARGER = 8


def random_batches(loaders: Any, count: int, seed: int) -> Iterator[tuple[Any, Tensor | None]]:
    """Batches of at least ``count`` random samples, or of all there are; they come without end from an endless stream.

    From a DataLoader over a map-style data set, ``count`` samples are drawn without replacement (those that its
    ``SubsetRandomSampler`` leaves, where it has one), collated as the loader does, read in this process. From anything
    else come the batches that a new iterator over it yields. The draw uses no random generator but one of ``seed``.

    Yields:
        A batch, and the positions of its samples in the data set, int64, where they are known.
    """
    if not isinstance(loaders, DataLoader) or isinstance(loaders.dataset, IterableDataset):
        yield from ((batch, None) for batch in _stream(loaders))
        return
    dataset, sampler = loaders.dataset, loaders.sampler
    assert isinstance(dataset, Sized)
    pool = list(sampler.indices) if isinstance(sampler, SubsetRandomSampler) else range(len(dataset))
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).tolist()
    # With neither, the sampler yields what makes a batch: lists of indices, or one index of a ready batch
    inner = sampler if loaders.batch_sampler is None else loaders.batch_sampler
    size = getattr(inner, "batch_size", None) or (32 if loaders.batch_sampler is not None else None)
    if size is None:
        for i in order:
            yield loaders.collate_fn(dataset[pool[i]]), None
        return
    chosen = [pool[i] for i in order[:count]]
    for start in range(0, len(chosen), LARGER * size):
        chunk = chosen[start : start + LARGER * size]
        if loaders.batch_sampler is None:
            items: Any = dataset[chunk]
        elif hasattr(dataset, "__getitems__"):
            items = dataset.__getitems__(chunk)
        else:
            items = [dataset[i] for i in chunk]
        yield loaders.collate_fn(items), torch.tensor(chunk)


def _stream(loaders: Any) -> Iterable[Any]:
    def here(loader: DataLoader[Any]) -> DataLoader[Any]:
        loader.num_workers = 0
        loader.prefetch_factor = None
        return loader

    twins = apply_to_collection(fresh_iterators(loaders), DataLoader, here)
    if isinstance(twins, dict | list | tuple):
        return (batch for batch, _, _ in CombinedLoader(twins, "max_size_cycle"))
    return twins
