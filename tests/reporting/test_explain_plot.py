"""The picture of an explanation."""

import pytest

from tglo_lightning.losses import published_theta
from tglo_lightning.reporting import plot_explanation
from tglo_lightning.theory import explain

MNIST = published_theta("mnist_published")


@pytest.mark.parametrize("loss", [MNIST, "baikal", [0.0] * 12, "brier"])
def test_picture(loss, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    path = plot_explanation(explain(loss, 2 if loss == "brier" else 10), tmp_path / "new" / "loss.png")
    height, width, _ = image.imread(path).shape
    assert width > height > 400
