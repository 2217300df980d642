"""Equal for the same script started again, different for another one."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs
from helpers.modules import classifier, cnn, mlp, seeded
from torch import nn

from tglo_lightning.module.fingerprint import data_identity, described, digest, module_identity, sources


def test_the_same_module_again():
    assert module_identity(seeded(mlp)) == module_identity(seeded(mlp))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda net: nn.init.ones_(net[0].weight), "weights"),
        (lambda net: net[0].weight.data.copy_(net[0].weight.data.flip(0)), "weights"),
        (lambda net: net[0].weight.requires_grad_(False), "structure"),
        (lambda net: setattr(net[2], "p", 0.5), "structure"),
        (lambda net: net.append(nn.Linear(3, 3)), "parameters"),
    ],
    ids=["values", "their order", "frozen", "an option", "a layer"],
)
def test_what_makes_another_module(change, key):
    net = seeded(mlp)
    change(net)
    assert module_identity(net)[key] != module_identity(seeded(mlp))[key]


def test_last_bits_make_no_difference():
    net = seeded(mlp)
    with torch.no_grad():
        net[0].weight *= 1 + 1e-6
    assert module_identity(net) == module_identity(seeded(mlp))


def test_source_of_ones_own_classes_alone():
    found = sources([classifier(pl), nn.Linear, pl.Trainer, cnn, int])
    assert sorted(name.rpartition(".")[2] for name in found) == ["Classifier", "cnn"]


def test_data_are_told_apart():
    x, y = blobs().tensors
    batch = {"train": (x[:4], y[:4])}
    assert data_identity(batch, 96) == data_identity({"train": (x[:4] * (1 + 1e-7), y[:4])}, 96)
    assert data_identity(batch, 96) != data_identity({"train": (x[:4], y[:4].flip(0))}, 96)
    assert data_identity(batch, 96) != data_identity(batch, 95)


def test_plain_values():
    assert described({"a": (1, None, float("inf"), torch.ones(2)), "b": {2, 1}}) == {
        "a": [1, None, "inf", [[2], "torch.float32", "1.414e+00", "2.236e+00"]],
        "b": [1, 2],
    }
    assert described(partial(mlp, dropout=0.5)) == ["helpers.modules.mlp", [], {"dropout": 0.5}]
    assert described("a path", texts=False) == "text"
    assert described(nn.Linear(1, 1)) == "torch.nn.modules.linear.Linear"
    assert digest([1, "a"]) == digest([1, "a"]) != digest([1, "b"])
