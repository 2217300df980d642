import json
from importlib.resources import files

import pytest
import torch

from tglo_lightning.losses import robust
from tglo_lightning.losses.priors import prior
from tglo_lightning.theory import to_minimal, to_shape

FILES = files("tglo_lightning.losses.priors").iterdir()
NAMES = [file.name.removesuffix(".json") for file in FILES if file.name.endswith(".json")]


@pytest.mark.parametrize("name", NAMES)
def test_every_prior_is_a_centre_with_a_spread_and_says_where_it_comes_from(name):
    found = prior(name)
    assert len(found.t) == len(found.spread)
    assert len(found.t) % 2 == 1
    assert all(value > 0 for value in found.spread)
    assert found.provenance["tasks"]
    assert json.loads(json.dumps(found.provenance)) == found.provenance


@pytest.mark.parametrize("num_classes", [3, 10, 100])
def test_the_robust_loss_has_the_shape_of_the_prior_and_mean_pull_1(num_classes):
    scale, t = to_shape(to_minimal(robust(num_classes).theta), num_classes)
    assert float(scale) == pytest.approx(1)
    torch.testing.assert_close(t, torch.tensor(prior().t, dtype=t.dtype))


def test_an_unknown_prior_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="'shared'"):
        prior("nothing")


def test_a_prior_of_the_recipe_says_how_it_was_found():
    found = prior("tasks29").provenance
    assert {"command", "tasks", "splits", "search", "versions", "centres", "source", "real_data"} <= set(found)
    held_out = found["source"]["summary"]["held out"]
    assert held_out["noisy_tasks"] + held_out["some_tasks"] + held_out["clean_tasks"] == len(found["tasks"]) == 29
    # The same direction as the shape that a prototype found on other tasks
    assert torch.allclose(torch.tensor(prior("tasks29").t), torch.tensor(prior().t), atol=0.5)
