"""Reaching whole stacks from within vmap, and doing without."""

import pytest
import torch
from helpers.data import loader
from helpers.modules import mlp
from torch.nn import functional as F

from tglo_lightning.evaluation import mapping
from tglo_lightning.evaluation.vectorized.mapping import map_again, on_stacks
from tglo_lightning.evaluation.vectorized.stack import Chunk, Step
from tglo_lightning.evaluation.vectorized.stacked_loss import StackedTaylorGLOLoss
from tglo_lightning.losses import TaylorGLOLoss

BREAKS = {
    "absent": lambda patch: patch.setattr(mapping, "functorch", None),
    "other arguments": lambda patch: patch.setattr(mapping.functorch, "_unwrap_batched", lambda value: value),
    "other meaning": lambda patch: patch.setattr(mapping.functorch, "_add_batch_dim", lambda value, dim, level: value),
}


class Module(torch.nn.Module):
    """A network with its loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = mlp()
        self.criterion = StackedTaylorGLOLoss.of(TaylorGLOLoss([0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0]))

    def training_step(self, batch):
        return self.criterion(self.net(batch[0]), batch[1])


def trained():
    """Losses and gradients of three candidates in two passes."""
    module = Module().double()
    theta = module.criterion.theta + torch.arange(3.0).double().unsqueeze(1) / 10
    module.criterion.classes = 3
    rows = {"criterion.theta": theta, "criterion.coefficients": module.criterion.prepare(theta)}
    chunk = Chunk(Step(module), 3, rows)
    x, y = next(iter(loader()))
    losses = [chunk.losses(((x.double(), y),)) for _ in range(2)]
    sum(losses).sum().backward()
    return [*losses, *(stack.grad for stack in chunk.params.values())]


def test_this_torch_lets_stacks_be_reached():
    assert mapping.REACHABLE


@pytest.mark.parametrize("way", BREAKS)
def test_another_torch_gives_the_same(monkeypatch, way):
    expected = trained()
    BREAKS[way](monkeypatch)
    assert not mapping._reachable()
    monkeypatch.setattr(mapping, "REACHABLE", False)
    for value, other in zip(trained(), expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-12)


def test_what_is_shared_comes_with_one_row():
    x, w = torch.randn(4, 3), torch.randn(5, 2, 3)
    shapes = []

    def stacked(x, w):
        shapes.append((len(x), len(w)))
        return x @ w.mT

    result = map_again(lambda own: on_stacks(stacked, x, own[0]), 5, [w])
    assert shapes == [(1, 5)]
    torch.testing.assert_close(result, torch.func.vmap(lambda own: F.linear(x, own))(w))
    assert on_stacks(stacked, x, w) is None


def test_an_error_leaves_no_layer_behind():
    def fail(*stacks):
        raise KeyError

    with pytest.raises(KeyError):
        map_again(lambda own: on_stacks(fail, own[0]), 2, [torch.zeros(2, 3)])
    assert on_stacks(fail, torch.zeros(2)) is None
