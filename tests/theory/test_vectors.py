"""Worked cases, checked against autograd when they were made: order 3, several numbers of classes."""

import json
from pathlib import Path

import pytest
import torch

from tglo_lightning import theory
from tglo_lightning.losses import TaylorGLOLoss

VECTORS = json.loads(Path(__file__).with_name("theory_vectors.json").read_text())


def computed(theta, logits, target, num_classes, alpha):
    h = torch.as_tensor(logits).softmax(-1)
    y = (torch.as_tensor(target)[..., None] == torch.arange(num_classes)).to(h)
    told = theory.trainability(theta, num_classes)
    d = theory.attraction_coefficients(theta, num_classes)
    return {
        "gamma": theory.gamma(theta, h, y),
        "logit_velocity": theory.logit_velocity(theta, logits, target),
        "attraction": theory.attraction(theta, logits, target),
        "entropy_rate": theory.entropy_rate(theta, logits, target),
        **theory.coefficients(theta),
        "A": told.A,
        "B": told.B,
        "S": told.S,
        "d0": d[..., 0],
        "d1": d[..., 1],
        "d2": d[..., 2],
        "label_smoothed_theta": theory.label_smoothed(theta, alpha, num_classes),
    }


def expected(case):
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in (case | case["coefficients"]).items()
            if key not in ("coefficients", "published", "trainable", "stable", "equilibria")}  # fmt: skip


def assert_match(values, case, **tolerance):
    wanted = expected(case)
    for key, value in values.items():
        torch.testing.assert_close(value.double(), wanted[key], msg=lambda text, key=key: f"{key}: {text}", **tolerance)


@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
@pytest.mark.parametrize("form", ["list", "tensor", "module"])
def test_every_worked_case_to_1e_9(case, form):
    theta, n = case["theta"], case["num_classes"]
    if form != "list":
        theta = torch.tensor(theta, dtype=torch.float64)
    if form == "module":
        theta = TaylorGLOLoss(theta)
    logits = torch.tensor(case["logits"], dtype=torch.float64)
    assert_match(computed(theta, logits, case["target"], n, case["alpha"]), case, rtol=1e-9, atol=1e-9)
    assert list(theory.coefficients(theta)) == list(case["coefficients"])
    told = theory.trainability(theta, n)
    assert (told.published, told.trainable, told.stable) == tuple(
        case[key] for key in ("published", "trainable", "stable")
    )
    assert told.trainable is case["trainable"]
    assert theory.equilibria(theta, n) == pytest.approx(case["equilibria"], abs=1e-9)


def test_plain_lists_compute_in_float64():
    case = VECTORS[0]
    velocity = theory.logit_velocity(case["theta"], case["logits"], case["target"])
    assert velocity.tolist() == pytest.approx(case["logit_velocity"], abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_batched_over_theta(num_classes, dtype, tolerance):
    cases = [case for case in VECTORS if case["num_classes"] == num_classes]
    theta, logits = (torch.tensor([case[key] for case in cases], dtype=dtype) for key in ("theta", "logits"))
    target = torch.tensor([case["target"] for case in cases])
    alpha = torch.tensor([case["alpha"] for case in cases], dtype=dtype)
    values = computed(theta, logits, target, num_classes, alpha)
    assert {value.dtype for value in values.values()} == {dtype}
    for i, case in enumerate(cases):
        scale = 1 + max(abs(value) for value in case["coefficients"].values())
        assert_match({key: value[i] for key, value in values.items()}, case, rtol=tolerance, atol=tolerance * scale)
    for key in ("published", "trainable", "stable"):
        assert getattr(theory.trainability(theta.double(), num_classes), key).tolist() == [case[key] for case in cases]
    assert theory.zero_error(theta, num_classes).verdict == [
        "attracts" if case["d0"] > 0 else "repels" for case in cases
    ]


def test_the_two_evolved_losses_that_were_published():
    mnist = (-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513)
    told = theory.trainability(mnist, 10)
    assert [float(value) for value in told[:3]] == pytest.approx([1919.9, 140.4, -305.5], abs=0.05)
    assert told[3:] == (False, True, True)
    assert float(theory.zero_error(mnist, 10).value) == pytest.approx(-143.0, abs=0.05)
    assert theory.equilibria(mnist, 10) == pytest.approx([0.469], abs=5e-4)
    other = (0.8439, 1.4872, 1.5742, -1.4446, 2.3616, -0.6632, -2.8569, -1.1313)
    assert [float(value) for value in theory.trainability(other, 10)[:3]] == pytest.approx(
        [12.28, 8.04, -18.29], abs=5e-3
    )
    assert theory.equilibria(other, 10) == pytest.approx([0.550], abs=5e-4)
