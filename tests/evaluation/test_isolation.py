"""What an inner training must not leave behind."""

import logging
import os
import random
import warnings

import numpy as np
import pytest
import torch
from helpers.data import blobs, loader
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, Subset

from tglo_lightning.evaluation.isolation import environment, fresh_iterators, generators, isolated, preserved, seed_all


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


def numbers():
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def test_global_states_come_back_also_after_an_error():
    seed_all(5)
    expected = numbers()
    seed_all(5)

    def interrupted():
        with isolated():
            seed_all(6)
            numbers()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert numbers() == expected


def test_an_apple_gpu_gets_its_state_back_too(monkeypatch):
    state = [torch.zeros(2)]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0].clone())
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda value: state.__setitem__(0, value))
    with isolated():
        state[0] = torch.ones(2)
    assert state[0].tolist() == [0, 0]


def test_environment_variables_are_for_a_while_and_never_replaced(monkeypatch):
    monkeypatch.delenv("TGLO_NEW", raising=False)
    monkeypatch.setenv("TGLO_OLD", "given")
    with environment(TGLO_NEW="1", TGLO_OLD="1"):
        assert (os.environ["TGLO_NEW"], os.environ["TGLO_OLD"]) == ("1", "given")
    assert "TGLO_NEW" not in os.environ
    assert os.environ["TGLO_OLD"] == "given"


def test_messages_are_muted_within():
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    filters = list(warnings.filters)
    with isolated():
        assert logger.level == logging.ERROR
        warnings.warn("not seen", stacklevel=1)
    assert logger.level == level
    assert warnings.filters == filters


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
    with preserved(found):
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
