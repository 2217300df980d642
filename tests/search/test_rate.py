"""A factor on learning rates trains as if the user had written the scaled rate, to the last bit."""

import functools

import numpy as np
import pytest
import torch
from helpers.data import blobs
from helpers.modules import mlp, seeded
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop, lr_scheduler
from torch.optim.swa_utils import SWALR

from tglo_lightning.search.rate import fixed_schedules, scale_built, scaled_rates

FACTOR, LR, STEPS = 0.3, 0.05, 12
X, Y = blobs().tensors

OPTIMIZERS = {
    "SGD": functools.partial(SGD, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": Adam,
    "AdamW": functools.partial(AdamW, weight_decay=0.1),
    "RMSprop": functools.partial(RMSprop, momentum=0.5),
}


def warmed_up(optimizer, r):
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=4)
    return lr_scheduler.SequentialLR(optimizer, [warmup, lr_scheduler.CosineAnnealingLR(optimizer, 8)], [4])


# Schedules of an optimizer; whatever is a rate and not a factor is multiplied by the second argument
SCHEDULES = {
    "none": None,
    "StepLR": lambda o, r: lr_scheduler.StepLR(o, 3, 0.5),
    "CosineAnnealingLR": lambda o, r: lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.01 * r),
    "CosineAnnealingWarmRestarts": lambda o, r: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, eta_min=0.01 * r),
    "OneCycleLR": lambda o, r: lr_scheduler.OneCycleLR(o, max_lr=0.2 * r, total_steps=STEPS + 1, cycle_momentum=False),
    "CyclicLR": lambda o, r: lr_scheduler.CyclicLR(o, 0.01 * r, 0.1 * r, step_size_up=4, cycle_momentum=False),
    "SequentialLR": warmed_up,
    "LambdaLR": lambda o, r: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "ReduceLROnPlateau": lambda o, r: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5, min_lr=0.02 * r),
    "SWALR": lambda o, r: SWALR(o, swa_lr=0.02 * r, anneal_epochs=5),
}


def trained(optimizer, schedule, r=1.0, after=None):
    """Weights and rates of a plain loop in which ``r`` was written behind every rate."""
    net = seeded(mlp)
    groups = [{"params": net[0].parameters()}, {"params": net[3].parameters(), "lr": 0.1 * r}]
    built = OPTIMIZERS[optimizer](groups, lr=LR * r)
    scheduler = None if SCHEDULES[schedule] is None else SCHEDULES[schedule](built, r)
    if after is not None:
        after(built, scheduler)
    rates = []
    for _ in range(STEPS):
        rates.append([group["lr"] for group in built.param_groups])
        built.zero_grad()
        nn.functional.cross_entropy(net(X), Y).backward()
        built.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(1.0)
        elif scheduler is not None:
            scheduler.step()
    return rates, [parameter.tolist() for parameter in net.parameters()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_as_if_the_user_had_written_it(optimizer, schedule):
    expected = trained(optimizer, schedule, FACTOR)
    with scaled_rates(FACTOR) as built:
        found = trained(optimizer, schedule)
    assert found == expected
    assert [type(each) for each in built] == [getattr(OPTIMIZERS[optimizer], "func", OPTIMIZERS[optimizer])]
    assert found[0] != trained(optimizer, schedule)[0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_was_built_before_is_scaled_afterwards(schedule):
    def scale(optimizer, scheduler):
        for _ in range(2):  # a second time changes nothing
            scale_built([optimizer], [] if scheduler is None else [scheduler], FACTOR)

    late, expected = trained("SGD", schedule, after=scale), trained("SGD", schedule, FACTOR)
    assert np.array(late[0]) == pytest.approx(np.array(expected[0]), rel=1e-9)


def test_nothing_stays_behind():
    before = Optimizer.add_param_group, lr_scheduler.OneCycleLR.__init__
    with pytest.raises(RuntimeError, match="boom"), scaled_rates(FACTOR):
        raise RuntimeError("boom")
    assert (Optimizer.add_param_group, lr_scheduler.OneCycleLR.__init__) == before
    with scaled_rates(1.0) as built:
        assert trained("SGD", "OneCycleLR") == trained("SGD", "OneCycleLR")
    assert built == []


def test_a_rate_that_is_a_tensor():
    with scaled_rates(0.5):
        optimizer = Adam(nn.Linear(2, 2).parameters(), lr=torch.tensor(0.1))
    assert optimizer.param_groups[0]["lr"] == 0.05


class Fixed(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [0.1 if self.last_epoch < 3 else 0.01]


class Relative(lr_scheduler.LRScheduler):
    def get_lr(self):
        return self.rates()

    def rates(self):
        return [rate * 0.9**self.last_epoch for rate in self.base_lrs]


def test_schedules_that_no_factor_reaches():
    optimizer = SGD(mlp().parameters(), lr=LR)
    built = [Fixed(optimizer), Relative(optimizer)]
    built += [make(optimizer, 1.0) for make in SCHEDULES.values() if make is not None]
    assert fixed_schedules(built) == ["Fixed"]
    assert fixed_schedules([lr_scheduler.SequentialLR(optimizer, [built[1], Fixed(optimizer)], [4])]) == ["Fixed"]
