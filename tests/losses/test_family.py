"""What every family says of itself, its config, and what is particular to some."""

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from tglo_lightning.losses import (
    FAMILIES,
    ClassWeightedLoss,
    CrossEntropyLoss,
    FocalLoss,
    ForwardCorrectionLoss,
    GCELoss,
    LogitAdjustedLoss,
    MAELoss,
    SCELoss,
    SmoothedCrossEntropyLoss,
    TaylorCrossEntropyLoss,
    class_priors,
    robust,
)
from tglo_lightning.theory import to_minimal, to_shape

CONF = Path(__file__).parents[2] / "conf" / "loss"
LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.arange(7) % 5
SOFT = LOGITS.flip(0).softmax(1)


def test_axes_are_the_arguments_of_the_constructor(tester):
    arguments = inspect.signature(tester.family).parameters
    for axis in tester.family.axes:
        assert arguments[axis.name].default == axis.default
        assert axis.low < axis.decode(axis.encode(axis.default) + axis.spread) < axis.high
        assert axis.decode(axis.encode(axis.default)) == pytest.approx(axis.default)
    if tester.family.axes:
        loss = tester.build()
        assert loss.theta.tolist()[: len(tester.family.axes)] == [axis.default for axis in tester.family.axes]
        assert torch.equal(tester.build(loss.theta).theta, loss.theta)


def test_the_name_is_in_the_checkpoint(tester):
    assert FAMILIES[tester.name] is tester.family
    assert bytes(tester.build().state_dict()["_extra_state"].tolist()).decode() == tester.name


def test_each_family_has_a_config_with_its_defaults(tester):
    config = OmegaConf.load(CONF / f"{tester.name}.yaml")
    if tester.name in ("taylorglo", "cross_entropy"):
        return  # numbers are needed; torch's own loss
    assert config.pop("_target_") == f"tglo_lightning.losses.{tester.family.__name__}"
    arguments = {**inspect.signature(tester.family).parameters, **inspect.signature(CrossEntropyLoss).parameters}
    assert {axis.name for axis in tester.family.axes} <= set(config)
    assert {key: arguments[key].default for key in config} == dict(config)


def equal(one, other, tolerance=1e-9):
    for labels in (TARGET, SOFT):
        torch.testing.assert_close(one(LOGITS, labels), other(LOGITS, labels), rtol=tolerance, atol=tolerance)


def test_families_meet_at_their_ends():
    ce = CrossEntropyLoss()
    for loss in (GCELoss(0.0), SCELoss(1.0, 0.0), FocalLoss(0.0), ForwardCorrectionLoss(0.0)):
        equal(loss, ce)
    equal(GCELoss(1e-9), ce, 1e-7)
    for loss in (GCELoss(1.0), TaylorCrossEntropyLoss(1.0), SCELoss(0.0, 0.25)):
        equal(loss, MAELoss())
    for loss in (LogitAdjustedLoss(0.0, priors=range(1, 6)), ClassWeightedLoss(0.0, priors=range(1, 6))):
        equal(loss, ce)
    equal(LogitAdjustedLoss(priors=[1] * 5), ce)
    between = lambda z, y: (TaylorCrossEntropyLoss(3.0)(z, y) + TaylorCrossEntropyLoss(2.0)(z, y)) / 2  # noqa: E731
    equal(TaylorCrossEntropyLoss(2.5), between)


def test_parameters_other_than_the_defaults():
    h = LOGITS.softmax(1).gather(1, TARGET[:, None])[:, 0]
    for loss, expected in (
        (GCELoss(0.3), (1 - h**0.3) / 0.3),
        (SCELoss(6.0, 0.1), -6 * h.log() + 0.4 * (1 - h)),
        (FocalLoss(0.5), -((1 - h) ** 0.5) * h.log()),
        (TaylorCrossEntropyLoss(4.0), sum((1 - h) ** i / i for i in range(1, 5))),
        (ForwardCorrectionLoss(0.5), -(0.5 * h + 0.5 * (1 - h) / 4).log()),
    ):
        torch.testing.assert_close(loss(LOGITS, TARGET), expected.mean(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"weight": torch.rand(5).double()}, {"ignore_index": 2}], ids=list)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_smoothing_is_torchs(options, alpha):
    for labels in (TARGET, SOFT) if "ignore_index" not in options else (TARGET,):
        ours = SmoothedCrossEntropyLoss(alpha, **options)(LOGITS, labels)
        torch.testing.assert_close(ours, F.cross_entropy(LOGITS, labels, label_smoothing=alpha, **options))


def test_class_weights_are_torchs_weights():
    priors = class_priors([0, 0, 0, 1, 1, 2, 3, 4, 4, 4, 4, -100], 5)
    assert priors.tolist() == pytest.approx([3 / 11, 2 / 11, 1 / 11, 1 / 11, 4 / 11])
    weights = priors**-0.5
    loss = ClassWeightedLoss(0.5, priors=priors)
    torch.testing.assert_close(loss(LOGITS, TARGET), F.cross_entropy(LOGITS, TARGET, weight=weights))
    assert float((loss.class_weights * priors).sum()) == pytest.approx(1)
    assert class_priors([0, 0, 0], 3).tolist() == pytest.approx([0.6, 0.2, 0.2])


def test_priors_travel_with_a_checkpoint():
    loss = LogitAdjustedLoss(priors=[1, 2, 3, 4, 5])
    for other in (LogitAdjustedLoss(priors=[1] * 5), LogitAdjustedLoss()):
        other.load_state_dict(loss.state_dict())
        equal(other, loss)


def test_forward_correction_tells_what_its_f_needs():
    with pytest.raises(ValueError, match="depends on the number of classes: give num_classes"):
        ForwardCorrectionLoss().f(1.0, torch.tensor(0.5))
    loss = ForwardCorrectionLoss(0.3, label_smoothing=0.1, reduction="sum").for_classes(5)
    assert (loss.num_classes, loss.label_smoothing, loss.reduction) == (5, 0.1, "sum")
    assert float(loss.f(1.0, torch.tensor(0.5))) == pytest.approx(float(torch.tensor(0.35 + 0.0375).log()))


def test_a_user_can_define_a_family():
    class Own(GCELoss):
        pass

    assert FAMILIES[Own.family] is Own
    assert Own.family == f"{__name__}.{Own.__qualname__}"
    del FAMILIES[Own.family]


def test_robust_is_the_shared_loss():
    torch.testing.assert_close(
        to_minimal(robust(10)), torch.tensor([-5.746, 7.929, -2.393, 3.096]).double(), rtol=0, atol=1e-3
    )
    for n in (3, 10, 100):
        scale, t = to_shape(to_minimal(robust(n)), n)
        assert float(scale) == pytest.approx(1)
        assert t.tolist() == pytest.approx([0.45, 1.01, 1.54])
    assert robust(2, reduction="sum").reduction == "sum"
    with pytest.raises(TypeError, match="num_classes"):
        robust(None)
    assert OmegaConf.load(CONF / "robust.yaml")._target_ == "tglo_lightning.losses.robust"
