"""A module that is looked at comes back as it was."""

import torch
from torch import nn

from tglo_lightning.module.preserving import preserved_module


def test_buffers_that_change_in_place_or_are_assigned_anew():
    module = nn.Module()
    module.register_buffer("mean", torch.zeros(2))
    module.register_buffer("count", torch.zeros(2))
    before = module.count
    with preserved_module(module):
        module.mean += 1
        module.count = module.count + 1
    assert module.mean.tolist() == [0, 0]
    assert module.count is before
    assert before.tolist() == [0, 0]
