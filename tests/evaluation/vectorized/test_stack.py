"""One pass over some candidates: each has the loss and the gradients that it would have alone."""

import pytest
import torch
from helpers.data import blobs
from helpers.modules import mlp
from torch import nn

from tglo_lightning.evaluation.vectorized.stack import Chunk, Step
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.losses.base import SeparableLoss


class PowerLoss(SeparableLoss):
    """Another family: ``f(y, h) = t0 y h^t1``."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("theta", torch.tensor([1.0, 0.5]))

    def elementwise(self, y, h, log_h):
        return self.theta[0] * y * (self.theta[1] * log_h).exp()


class Module(nn.Module):
    """A network with its loss."""

    def __init__(self, criterion):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.criterion = mlp(), criterion

    def training_step(self, batch):
        return self.criterion(self.net(batch[0]), batch[1])


TAYLOR = [0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0]
LOSSES = {
    "taylor": lambda: TaylorGLOLoss(TAYLOR),
    "taylor, smoothed and weighted": lambda: TaylorGLOLoss(TAYLOR, label_smoothing=0.1, weight=torch.rand(3)),
    "another family": PowerLoss,
    "another family, smoothed": lambda: PowerLoss(label_smoothing=0.1),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_each_candidate_is_as_it_would_be_alone(loss):
    step = Step(Module(LOSSES[loss]()).double())
    theta = step.buffers["criterion.theta"] + torch.arange(3.0).double().unsqueeze(1) / 10
    x, y = blobs().tensors
    batch = ((x.double(), y),)
    together = Chunk(step, dict.fromkeys(range(3), 1.0), {"criterion.theta": theta})
    together.backward(batch)
    for index in range(3):
        alone = Chunk(step, {index: 1.0}, {"criterion.theta": theta[index : index + 1]})
        alone.backward(batch)
        torch.testing.assert_close(together.losses(batch)[index], alone.losses(batch)[0])
        for name, stack in together.params.items():
            torch.testing.assert_close(stack.grad[index], alone.params[name].grad)
