"""A criterion is data: it survives JSON, and says what it is."""

import json

import numpy as np
import pytest
from torch import nn

from tglo_lightning.losses import CrossEntropyLoss, TaylorGLOLoss
from tglo_lightning.search import Criterion, LossSpec

THETA = [0.1, 0.2, 0, -1.0, 1e-300, 2.0, 1 / 3, -1e300]


@pytest.mark.parametrize(
    "criterion",
    [
        Criterion.original(),
        Criterion.original(step=1 / 3),
        Criterion.of("taylorglo", THETA, step=0.1),
        Criterion.of("cross_entropy"),
        Criterion((LossSpec("smoothing", (0.1,)), LossSpec("taylorglo", tuple(THETA))), 2.0),
        Criterion([LossSpec("smoothing", [np.float32(0.1)])], np.float32(0.5)),
    ],
)
def test_json_and_back_is_the_same_to_the_last_bit(criterion):
    again = Criterion.from_dict(json.loads(json.dumps(criterion.to_dict(), allow_nan=False)))
    assert again == criterion
    assert hash(again) == hash(criterion)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"losses": []},
        {"losses": [], "step": 0},
        {"losses": [], "step": None},
        {"losses": [{"family": "taylorglo"}], "step": 1},
        {"losses": [{"family": 3, "theta": []}], "step": 1},
        {"losses": [{"family": "taylorglo", "theta": [float("nan")]}], "step": 1},
        {"losses": [{"family": "taylorglo", "theta": ["1"]}], "step": 1},
        {"losses": 5, "step": 1},
    ],
)
def test_what_is_no_criterion(wrong):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Criterion.from_dict(wrong)


def test_what_it_says():
    both = Criterion((LossSpec("smoothing", (0.1,)), LossSpec("cross_entropy", ())), 0.5)
    assert both.formula == "y log(h), labels smoothed by 0.1; y log(h), learning rate x 0.5"
    assert both.shape == (("smoothing", 1), ("cross_entropy", 0))
    assert (Criterion.original().formula, Criterion.original(0.3).formula) == ("", "learning rate x 0.3")
    assert [Criterion.original().is_original, Criterion.original(0.3).is_original, both.is_original] == [True, 0, 0]


def test_it_builds_its_loss_with_the_options_of_the_original():
    loss = Criterion.of("taylorglo", THETA).build(nn.CrossEntropyLoss(ignore_index=2))
    assert (type(loss), loss.theta.tolist(), loss.ignore_index) == (TaylorGLOLoss, THETA, 2)
    original = nn.CrossEntropyLoss()
    assert Criterion.original(step=0.3).build(original) is original
    assert isinstance(Criterion.of("cross_entropy").build(original), CrossEntropyLoss)
    with pytest.raises(ValueError, match="several losses"):
        Criterion((LossSpec("cross_entropy", ()),) * 2).build()
    with pytest.raises(ValueError, match="No family of losses is called 'unknown'"):
        Criterion.of("unknown").build()
