"""Bad input: an error at once that says what was expected."""

import pytest
import torch

from tglo_lightning.losses import (
    ClassWeightedLoss,
    GCELoss,
    LogitAdjustedLoss,
    SCELoss,
    SmoothedCrossEntropyLoss,
    TaylorGLOLoss,
    as_loss,
    class_priors,
)

LOGITS = torch.zeros(4, 5)
TARGET = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reduction": "average"}, ValueError, r"`reduction` must be one of .*'mean'.*got 'average'"),
        ({"label_smoothing": 1.5}, ValueError, r"`label_smoothing` must be in \[0, 1\], got 1.5"),
        ({"label_smoothing": float("nan")}, ValueError, r"`label_smoothing` must be in \[0, 1\], got nan"),
        ({"label_smoothing": "0.1"}, TypeError, "`label_smoothing` must be a number"),
        ({"ignore_index": 1.0}, TypeError, "`ignore_index` must be an int, got 1.0"),
        ({"ignore_index": True}, TypeError, "`ignore_index` must be an int, got True"),
        ({"weight": torch.ones(2, 2)}, ValueError, r"`weight` must be a floating 1-D tensor.*\(2, 2\)"),
        ({"weight": torch.ones(2, dtype=torch.long)}, ValueError, r"`weight` must be a floating 1-D tensor.*int64"),
    ],
    ids=str,
)
def test_options(tester, options, error, message):
    if tester.name == "smoothing" and "label_smoothing" in options:
        message = "smooths by `alpha`|" + message
    with pytest.raises(error, match=message):
        tester.build(**options)


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (LOGITS, TARGET + 2, r"class indices must lie in \[0, 4\].*got values from 2 to 5"),
        (LOGITS, TARGET - 1, r"class indices must lie in \[0, 4\].*got values from -1 to 2"),
        (LOGITS, TARGET[:3], r"class indices \(integers\) of shape \(4,\).*got torch.int64 of shape \(3,\)"),
        (LOGITS, TARGET.float(), r"got torch.float32 of shape \(4,\)"),
        (LOGITS, TARGET > 1, r"got torch.bool of shape \(4,\)"),
        (LOGITS, LOGITS.long(), r"got torch.int64 of shape \(4, 5\)"),
        (LOGITS, torch.zeros(4, 6), r"class probabilities \(floating\) of shape \(4, 5\).*got torch.float32"),
        (LOGITS, LOGITS + 2, r"class probabilities must lie in \[0, 1\], got values from 2.0 to 2.0"),
        (LOGITS, LOGITS - 1, r"class probabilities must lie in \[0, 1\]"),
        (LOGITS, LOGITS * float("nan"), r"class probabilities must lie in \[0, 1\], got values from nan to nan"),
        (LOGITS.long(), TARGET, r"logits must be a floating tensor .*got torch.int64 of shape \(4, 5\)"),
        (torch.tensor(1.0), TARGET, r"logits must be a floating tensor .*of shape \(\)"),
        (torch.zeros(4, 5, 2), TARGET, r"of shape \(4, 2\)"),
    ],
)
def test_forward(tester, logits, target, message):
    with pytest.raises(ValueError, match=message) as caught:
        tester.build()(logits, target)
    assert tester.family.__name__ in str(caught.value)


def test_out_of_range_beside_an_ignored_target(tester):
    with pytest.raises(ValueError, match="got values from 0 to 7"):
        tester.build()(LOGITS, torch.tensor([0, -100, 7, 1]))


def test_weight_of_another_length(tester):
    if tester.name == "class_weights":
        return  # multiplied with the weights from the priors, whose length is checked
    with pytest.raises(ValueError, match=r"`weight` has 3 values, the logits have 5 classes"):
        tester.build(weight=torch.ones(3))(LOGITS, TARGET)


@pytest.mark.parametrize(
    ("theta", "order", "error", "message"),
    [
        ([1.0] * 7, 3, ValueError, r"must have 8 values at order 3 \(2 centres and 6 coefficients\), got 7"),
        ([1.0] * 8, 4, ValueError, r"must have 12 values at order 4"),
        ([1.0] * 7 + [float("nan")], 3, ValueError, "`theta` must be finite"),
        ([1.0] * 7 + [float("inf")], 3, ValueError, "`theta` must be finite"),
        (torch.ones(2, 8), 3, ValueError, r"must be one vector of 8 values, got shape \(2, 8\)"),
        (1.0, 3, ValueError, "must be a sequence of numbers, got the single number 1.0"),
        (["a"] * 8, 3, TypeError, "must be a tensor or numbers"),
        (None, 1, ValueError, "`order` must be at least 2, got 1"),
        (None, 3.0, TypeError, "`order` must be an int, got 3.0"),
        (None, True, TypeError, "`order` must be an int, got True"),
        (torch.ones(8) * 1j, 3, TypeError, "must be real numbers"),
    ],
)
def test_theta(theta, order, error, message):
    with pytest.raises(error, match=message):
        TaylorGLOLoss(theta, order=order)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("crossentropy", ValueError, "Unknown loss 'crossentropy'; known: asymmetric, baikal, .*gce"),
        (torch.nn.MSELoss(), TypeError, "MSELoss is not a loss of a known family"),
        ([1.0] * 7, ValueError, r"must have 5, 8, 12, 17, ... values"),
        (None, TypeError, "must be a tensor or numbers"),
        (3.0, ValueError, "the single number 3.0"),
    ],
    ids=str,
)
def test_as_loss(loss, error, message):
    with pytest.raises(error, match=message):
        as_loss(loss)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: GCELoss(1.2), ValueError, r"`q` must be in \[0, 1\], got 1.2"),
        (lambda: GCELoss("0.7"), TypeError, "`q` must be a number"),
        (lambda: SCELoss(-0.1), ValueError, "`alpha` must be at least 0 and finite, got -0.1"),
        (lambda: SCELoss.of([0.1, 1.0, 2.0]), ValueError, r"`theta` must have 2 values \(alpha, beta\), got \[0.1, 1"),
        (lambda: SmoothedCrossEntropyLoss(0.2, label_smoothing=0.1), ValueError, "give no `label_smoothing`"),
        (lambda: LogitAdjustedLoss()(LOGITS, TARGET), ValueError, "LogitAdjustedLoss needs `priors`"),
        (lambda: ClassWeightedLoss()(LOGITS, TARGET), ValueError, "ClassWeightedLoss needs `priors`"),
        (lambda: LogitAdjustedLoss(priors=[1, 2])(LOGITS, TARGET), ValueError, "`priors` has 2 values, the logits"),
        (lambda: ClassWeightedLoss(priors=[1, 0]), ValueError, "`priors` must be positive numbers"),
        (lambda: class_priors([0, 3], 3), ValueError, r"`labels` must lie in \[0, 2\], got 3"),
    ],
)  # fmt: skip
def test_parameters_of_families(build, error, message):
    with pytest.raises(error, match=message):
        build()
