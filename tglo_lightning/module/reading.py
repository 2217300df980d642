"""Read some samples of a data loader, to tell one data set from another."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset

from tglo_lightning.search.seeding import seed_all
from tglo_lightning.search.walker import Walker

BYTES = 256 * 2**20
# After so long only what has been read at the last power of 4 counts: where that is should not depend on the load
SECONDS = 5.0
TWICE = 4
# Samples of a stream, which may have no end
STREAM = 256


class Samples(NamedTuple):
    """What was read: a hash of the samples, and in words how many they are, of how many."""

    hashed: str
    words: str


def read_samples(loader: Any, generators: Iterable[Any], most: int, walker: Callable[[], Walker]) -> Samples:
    """Read up to ``most`` samples of a loader, in a random order that is always the same, or the first of a stream.

    They are read by one worker process where the loader has some: a data set may open a file when it is first read.
    Another iterable than a loader of torch is read by batches. The ``generators`` that the data draw from are seeded.
    A new ``walker`` describes each sample and tells its size in bytes.
    """
    generators = list(generators)
    total = len(loader.dataset) if isinstance(getattr(loader, "dataset", None), Sized) else None
    of = "samples of a stream" if total is None else f"of {total:,} samples"
    try:
        start = time.monotonic()
        first, again = (
            [walker().value(sample) for sample in _samples(loader, generators, total, min(most, TWICE))] for _ in "ab"
        )
        if first != again:
            return Samples("", "not compared, for they differ from one reading to the next")
        hashed, size, count = hashlib.sha256(), 0, 0
        marked = None
        for count, sample in enumerate(_samples(loader, generators, total, most), 1):
            described = walker()
            hashed.update(described.value(sample).encode())
            size += described.bytes
            if size > BYTES:
                break
            if marked and time.monotonic() - start > SECONDS:
                return marked
            if count & (count - 1) == 0 and count.bit_length() % 2:
                marked = Samples(hashed.hexdigest()[:12], f"{count:,} {of}")
        return Samples(hashed.hexdigest()[:12], f"{count:,} {of}")
    except Exception as error:  # code of the user's
        return Samples("", f"not read one by one: {type(error).__name__}")


def _samples(loader: Any, generators: list[Any], total: int | None, most: int) -> Iterator[Any]:
    seed_all(0, generators)
    if not isinstance(loader, DataLoader):
        batches = iter(loader)
        return islice(batches, 0 if batches is loader else min(most, STREAM))
    stream = isinstance(loader.dataset, IterableDataset)
    most = min(most, STREAM) if stream else most
    chosen = None if stream else random.Random(0).sample(range(total or 0), min(total or 0, most))
    workers = min(1, loader.num_workers)
    single: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_size=None,
        sampler=chosen,
        num_workers=workers,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context if workers else None,
    )
    return islice(iter(single), most)
