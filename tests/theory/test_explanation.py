import json

import pytest
import torch

from tglo_lightning.losses import CrossEntropyLoss, TaylorGLOLoss, robust
from tglo_lightning.theory import coefficients, explain

MNIST = [-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513]


def test_text_tells_what_the_theory_says():
    text = explain(MNIST, 10).text
    for part in ("Trainable: yes", "B = 140.4 > 0", "published invariant B >= (n - 2) A fails", "Repels: D(0) = -143"):
        assert part in text
    assert "eps* = 0.4692: confidence 0.5308, implied label smoothing 0.5214" in text
    assert "c_hy" in text
    assert "(y-t0) (h-t1)^2" in text
    lines = [line for line in text.splitlines() if not line.startswith("  f(y, h)")]
    assert max(map(len, lines)) <= 100


def test_text_tells_pull_and_shape():
    text = explain(robust(10), 10).text
    assert "Mean 1: divided by it, the loss trains at cross-entropy's rate" in text
    assert "Largest 2.886" in text
    assert "(D(eps_mid)/B, D(0)/B, -S/B) = (0.45, 1.01, 1.54)\n    (cross-entropy: (0.1818, 0.1, 1))" in text
    assert "Mean -inf: the loss cannot be scaled to cross-entropy's rate" in explain("baikal", 10).text
    assert "Shape" not in explain([0.0] * 8, 10).text


def test_why_a_loss_cannot_be_trained():
    turned = explain(MNIST[:2] + [-value for value in MNIST[2:]], 10)
    for untrainable in (turned, explain([0.0] * 8, 10)):
        assert untrainable.trains == "no"
        assert "nothing can be learned" in untrainable.text
    drifting = explain([0, 0, 0, 1.0, 0, 1.0, 0, 0], 10)
    assert drifting.trains == "doubtful"
    assert "the network may collapse" in drifting.text


def test_numbers_are_ready_for_json():
    told = json.loads(json.dumps(explain(TaylorGLOLoss(MNIST), 10).to_dict(), allow_nan=False))
    assert told["theta"] == MNIST
    assert told["coefficients"] == {key: float(value) for key, value in coefficients(MNIST).items()}
    assert told["equilibria"][0]["confidence"] == pytest.approx(0.5308, abs=1e-4)
    assert told["trains"] == "yes"
    assert told["shape"][0] == pytest.approx(explain(MNIST, 10).shape[0])
    told = json.loads(json.dumps(explain("baikal", 10).to_dict(), allow_nan=False))
    assert told["zero_error"] == told["mean_pull"] == told["shape"][1] == "-inf"


@pytest.mark.parametrize(
    "loss", [torch.nn.CrossEntropyLoss(label_smoothing=0.1), CrossEntropyLoss(label_smoothing=0.1)]
)
def test_label_smoothing_of_the_module_counts(loss):
    explanation = explain(loss, 10)
    assert explanation.equilibria[0].label_smoothing == pytest.approx(0.1)
    assert explanation.coefficients is None
    assert "smoothed by alpha = 0.1" in explanation.text


def test_pull_of_cross_entropy_at_the_null_epoch():
    assert explain("cross_entropy", 4).null_pull == pytest.approx(0.75)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        explain("baikal", 1)
    with pytest.raises(ValueError, match="one vector"):
        explain(torch.zeros(2, 8), 10)
    with pytest.raises(ValueError, match="5, 8, 12"):
        explain([1.0, 2.0], 10)
