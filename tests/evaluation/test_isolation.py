"""What an inner training must not leave behind."""

import logging
import os
import random
import warnings

import numpy as np
import pytest
import torch

from tglo_lightning.evaluation.isolation import environment, isolated
from tglo_lightning.search.seeding import seed_all


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
