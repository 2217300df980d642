"""Fixtures of the tests beside it."""

import pytest
import torch
from attacked_networks import NETWORKS, Net, images, train


@pytest.fixture(scope="session")
def networks():
    """Each of `NETWORKS`, trained."""
    pytest.importorskip("foolbox")
    trained = {}
    with torch.random.fork_rng():
        for name, (layers, criterion) in NETWORKS.items():
            torch.manual_seed(0)
            trained[name] = train(Net(layers(), criterion()))
    return trained


@pytest.fixture
def net(networks):
    return networks["mlp, cross-entropy"]


@pytest.fixture(scope="session")
def data():
    return images(48, seed=2)
