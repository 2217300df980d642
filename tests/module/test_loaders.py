"""What data loaders draw from, and loaders without worker processes."""

import random

import numpy as np
import torch
from helpers.data import blobs, loader
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, Subset

from tglo_lightning.module.loaders import fresh_iterators, generators
from tglo_lightning.search.seeding import random_states, seed_all


class Noisy(Dataset):
    """Draws from generators of its own."""

    def __init__(self) -> None:
        self.numpy = np.random.default_rng(0)
        self.old = np.random.RandomState(0)
        self.python = random.Random(0)
        self.torch = torch.Generator()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index):
        return [
            self.numpy.random(),
            self.old.random_sample(),
            self.python.random(),
            torch.rand((), generator=self.torch).item(),
        ]


def test_generators_are_found_where_loaders_draw_from():
    own, of_sampler = torch.Generator(), torch.Generator()
    data = Noisy()
    sampler = RandomSampler(blobs(), generator=of_sampler)
    one = loader(shuffle=True, generator=own)
    two = DataLoader(blobs(), sampler=sampler)
    three = DataLoader(ConcatDataset([Subset(data, [0]), blobs()]))

    class Holder:
        def __init__(self) -> None:
            self.split = own
            self.loader = two

    assert set(map(id, generators([one, {"a": two}]))) >= {id(own), id(of_sampler)}
    assert set(map(id, generators(Holder()))) == {id(own), id(of_sampler)}
    found = {id(g) for g in generators(three)}
    assert found == {id(g) for g in (data.numpy, data.old, data.python, data.torch)}
    assert generators(None, iter([]), range(3)) == []


def test_generators_are_seeded_and_put_back():
    data = Noisy()
    found = generators(DataLoader(data))
    before = data[0]
    after = data[0]
    with random_states(found):
        seed_all(1, found)
        one = data[0]
        seed_all(1, found)
        assert data[0] == one
        seed_all(2, found)
        assert data[0] != one
    again = data[0]
    assert len({tuple(before), tuple(after), tuple(again)}) == 3
    fresh = Noisy()
    assert [fresh[0] for _ in range(3)] == [before, after, again]


def test_any_seed_of_32_bits():
    data = Noisy()
    seed_all(2**32 - 1, generators(DataLoader(data)))


def test_persistent_workers_stay_with_the_outer_loader():
    outer = loader(num_workers=1, persistent_workers=True)
    list(outer)
    iterator = outer._iterator
    twin = fresh_iterators({"train": [outer]})["train"][0]
    assert twin._iterator is None
    assert twin.dataset is outer.dataset
    assert outer._iterator is iterator
