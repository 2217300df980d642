"""The landscape around a network."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tglo_lightning.reporting.landscape import Landscape, filter_normalized, measure_landscape


@pytest.fixture
def landscape(net, data):
    return measure_landscape(net, data, directions=3, points=5, surface=True, surface_points=3)


def test_filters_have_the_length_of_the_networks_own(networks):
    net = networks["cnn with BatchNorm, squared error"]
    direction = filter_normalized(net, torch.Generator().manual_seed(0))
    weights = dict(net.named_parameters())
    assert set(direction) == {name for name, weight in weights.items() if weight.dim() > 1}
    for name, way in direction.items():
        assert torch.allclose(way.flatten(1).norm(dim=1), weights[name].flatten(1).norm(dim=1))
        assert not torch.allclose(way, weights[name])


def test_values_are_those_of_the_moved_network(net, data, landscape):
    x, y = data
    generator = torch.Generator().manual_seed(0)
    ways = [filter_normalized(net, generator) for _ in range(3)]

    def at(*moves):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for name, weight in moved.named_parameters():
                for step, way in moves:
                    weight += step * way.get(name, torch.zeros(()))
            logits = moved(x)
        return (logits.argmax(1) == y).double().mean(), F.cross_entropy(logits.double(), y)

    assert landscape.steps.tolist() == [-1, -0.5, 0, 0.5, 1]
    for row, way in enumerate(ways):
        for column, step in enumerate(landscape.steps.tolist()):
            accuracy, loss = at((step, way))
            assert landscape.accuracy[row, column] == accuracy
            assert landscape.cross_entropy[row, column] == pytest.approx(float(loss), rel=1e-5)
    for row, one in enumerate(landscape.surface_steps.tolist()):
        for column, two in enumerate(landscape.surface_steps.tolist()):
            assert landscape.surface_accuracy[row, column] == at((one, ways[0]), (two, ways[1]))[0]


def test_weights_mode_and_random_states_are_as_before(networks, data):
    net = copy.deepcopy(networks["cnn with BatchNorm, squared error"]).train()
    weights, before = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    measure_landscape(net, data, directions=1, points=3)
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert all(child.training for child in net.modules())
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in net.parameters())


def test_width():
    steps = torch.tensor([-1.0, -0.5, 0, 0.5, 1], dtype=torch.float64)
    accuracy = torch.tensor([[0.2, 0.6, 1.0, 0.9, 0.8], [0.0, 0.8, 1.0, 0.0, 0.0]], dtype=torch.float64)
    empty = torch.empty(0)
    landscape = Landscape(steps, accuracy, accuracy, empty, empty, empty, 10, 0)
    mean, _ = landscape.width(0.7)
    # first direction, right: never below; left: between 1 and 0.6. Second, right: between 1 and 0; left: beyond 0.8
    assert mean == pytest.approx((1 + 0.5 * 0.3 / 0.4 + 0.5 * 0.3 + 0.5 + 0.5 * 0.1 / 0.8) / 4)


def test_a_file_keeps_all_of_it(landscape, tmp_path):
    landscape.cross_entropy[0, 0] = torch.inf
    read = Landscape.load(landscape.save(tmp_path / "new" / "landscape.npz"))
    assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(vars(landscape)[k])) for k, v in vars(read).items())
    np.savez(tmp_path / "other.npz", steps=1)
    with pytest.raises(ValueError, match="no landscape"):
        Landscape.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "options",
    [
        {"points": 4},
        {"points": 1},
        {"surface_points": 2},
        {"directions": 0},
        {"directions": 1, "surface": True},
        {"reach": 0},
        {"reach": float("inf")},
    ],
)
def test_arguments_out_of_range(net, data, options):
    with pytest.raises(ValueError, match="`"):
        measure_landscape(net, data, **options)


def test_no_images(net, data):
    with pytest.raises(ValueError, match="`data`"):
        measure_landscape(net, (data[0], data[1][:3]))
