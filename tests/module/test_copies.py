"""Where a candidate starts."""

import copy
from functools import partial
from types import MethodType

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers.modules import classifier, cnn, mlp
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanMetric

from tglo_lightning.module.copies import check_resettable, fresh_module, leave_ranks, replicate


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_a_copy_has_its_own_weights():
    net = mlp()
    twin = fresh_module(net, "module")
    assert same(net, twin)
    with torch.no_grad():
        twin[0].weight.add_(1)
    assert not same(net, twin)


@pytest.mark.parametrize(
    "net",
    [
        mlp(),
        cnn(),
        nn.TransformerEncoderLayer(8, 2, 16),
        nn.MultiheadAttention(8, 2),
        nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
        nn.LSTM(4, 4),
        nn.Sequential(nn.Embedding(5, 4), nn.PReLU(), nn.GroupNorm(2, 4)),
    ],
    ids=lambda net: type(net).__name__,
)
def test_reset_equals_a_fresh_build_in_distribution(net):
    """Every parameter is drawn anew or back at its constant, from torch's global generator alone."""
    check_resettable(net)
    disturbed = copy.deepcopy(net)
    with torch.no_grad():
        for value in disturbed.state_dict().values():
            if value.is_floating_point():
                value.fill_(77.0)
    torch.manual_seed(0)
    one = fresh_module(disturbed, "reset")
    torch.manual_seed(0)
    two = fresh_module(net, "reset")
    assert same(one, two)
    assert not any((p == 77.0).any() for p in one.parameters())
    assert all((p == 77.0).all() for p in disturbed.parameters())


def test_attention_is_reset_as_it_is_built():
    torch.manual_seed(0)
    attention = fresh_module(nn.MultiheadAttention(8, 2), "reset")
    assert (attention.out_proj.bias == 0).all()
    assert (attention.in_proj_bias == 0).all()
    bound = (6 / (8 + 24)) ** 0.5
    assert attention.in_proj_weight.abs().max() <= bound
    assert attention.in_proj_weight.std() > bound / 3


def test_an_orphan_parameter_is_refused():
    net = mlp()
    net.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="init='reset' cannot re-initialise scale"):
        check_resettable(net)


def test_a_function_builds():
    built = classifier(pl)()
    assert fresh_module(cnn(), lambda: built) is built
    with pytest.raises(TypeError, match="`init` must build a LightningModule, got Sequential"):
        fresh_module(cnn(), mlp)


def test_a_module_that_leaves_the_ranks_averages_alone(tmp_path):
    module = nn.ModuleDict({"norm": nn.SyncBatchNorm(3), "metric": MeanMetric()})
    reference = nn.BatchNorm1d(3)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        x = torch.randn(5, 3)
        with pytest.raises(ValueError, match="on GPU"):
            module["norm"](x)
        assert module["metric"].distributed_available_fn()
        leave_ranks(module)
        assert torch.equal(module["norm"](x), reference(x))
        assert not module["metric"].distributed_available_fn()
    finally:
        torch.distributed.destroy_process_group()


def test_a_module_that_keeps_its_last_pass_can_be_copied():
    net = mlp()
    net.last = net(torch.ones(2, 8))
    twin = replicate(net)
    assert torch.equal(twin.last, net.last)
    assert same(net, twin)


def test_what_is_bound_to_a_method_is_copied_too():
    """As LightningCLI binds the optimizer that it makes."""

    def configure(module, optimizer):
        return optimizer

    module = classifier(pl)()
    optimizer = torch.optim.Adam(module.parameters(), 0.3)
    module.configure_optimizers = MethodType(partial(configure, optimizer=optimizer), module)
    twin = replicate(module)
    copied = twin.configure_optimizers()
    assert copied is not optimizer
    assert [id(p) for p in copied.param_groups[0]["params"]] == [id(p) for p in twin.parameters()]
    assert copied.param_groups[0]["lr"] == 0.3
    assert twin.configure_optimizers.__self__ is twin


def test_large_data_are_shared():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1_100_000)
            self.register_buffer("table", torch.zeros(1_100_000))
            self.data = TensorDataset(torch.zeros(1_100_000), torch.zeros(1_100_000))
            self.arrays = {"x": np.zeros(1_100_000), "few": np.zeros(3)}

    module = Holder()
    copy = replicate(module)
    assert copy.data is not module.data
    assert copy.data.tensors[0] is module.data.tensors[0]
    assert copy.arrays["x"] is module.arrays["x"]
    assert copy.arrays["few"] is not module.arrays["few"]
    assert copy.table is not module.table
    assert copy.layer.weight is not module.layer.weight
