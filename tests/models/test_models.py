from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from tglo_lightning.attacks import AttackedModel
from tglo_lightning.data import DigitsDataModule
from tglo_lightning.losses import BarronLoss, BinaryFocalLoss
from tglo_lightning.models import MLP, Classifier, SmallCNN


@pytest.mark.parametrize("network", [MLP, SmallCNN])
def test_maps_images_to_logits(network):
    net = network(input_shape=(1, 8, 8), num_classes=10)
    assert net(torch.rand(5, 1, 8, 8)).shape == (5, 10)


def test_default_mlp_has_one_hidden_layer_of_64():
    shapes = [tuple(p.shape) for p in MLP(input_shape=(1, 8, 8), num_classes=10).parameters()]
    assert shapes == [(64, 64), (64,), (10, 64), (10,)]


def test_mlp_without_hidden_layers_is_linear():
    shapes = [tuple(p.shape) for p in MLP(input_shape=(64,), num_classes=10, hidden=[]).parameters()]
    assert shapes == [(10, 64), (10,)]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: MLP(input_shape=(64,), num_classes=1), "num_classes"),
        (lambda: MLP(input_shape=(64,), num_classes=10, hidden=[0]), "hidden"),
        (lambda: SmallCNN(input_shape=(64,), num_classes=10), "input_shape"),
        (lambda: SmallCNN(input_shape=(1, 8, 8), num_classes=10, channels=[4, 4, 4, 4]), "channels"),
    ],
)
def test_refuses_values_out_of_range(build, name):
    with pytest.raises(ValueError, match=name):
        build()


def _trainer(tmp_path, **kwargs):
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )


def test_classifier_learns_and_reports(tmp_path):
    pl.seed_everything(0, verbose=False)
    data = DigitsDataModule()
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=5, gamma=0.1)
    net = MLP(input_shape=data.input_shape, num_classes=10)
    module = Classifier(net, nn.CrossEntropyLoss(), 10, partial(torch.optim.Adam, lr=0.01), scheduler)
    trainer = _trainer(tmp_path, max_epochs=8)
    trainer.fit(module, datamodule=data)
    assert {"train/loss", "val/acc", "val/nll"} <= set(trainer.callback_metrics)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.001)
    [tested] = trainer.test(module, datamodule=data, verbose=False)
    images, labels = data._split(2).tensors
    with torch.no_grad():
        logits = module(images)
    assert tested["test/acc"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-6)
    assert tested["test/nll"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert tested["test/acc"] > 0.9


@pytest.mark.parametrize("criterion", [BinaryFocalLoss(0.0), nn.BCEWithLogitsLoss(), BarronLoss(2.0)])
def test_losses_of_other_targets_compare_with_one_hot_labels(criterion):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.randn(5, 1, 2, 2), torch.tensor([0, 2, 1, 2, 0])
    module = Classifier(net, criterion, 3, torch.optim.Adam)
    module.log = lambda *args, **kwargs: None
    expected = F.mse_loss if isinstance(criterion, BarronLoss) else F.binary_cross_entropy_with_logits
    labels = F.one_hot(y, 3).float()
    torch.testing.assert_close(module.training_step((x, y), 0), expected(net(x), labels))
    soft = labels * 0.8 + 0.1  # as Mixup makes them
    torch.testing.assert_close(module.training_step((x, soft), 0), expected(net(x), soft))
    # An attack follows the same loss
    own = AttackedModel(module.eval(), bounds=(-9, 9)).loss("own", net(x), y)
    torch.testing.assert_close(own, 5 * expected(net(x), labels))
