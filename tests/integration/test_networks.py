"""Networks, losses and targets of others, as they are."""

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import CLASSES, blobs, loader, loaders
from helpers.modules import TINY, accuracy, classifier, mlp, quiet_trainer, seeded
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.losses import TaylorGLOLoss


def fit(tmp_path, module, data, api=pl, **kwargs):
    options = {name: kwargs.pop(name) for name in ("loss", "evaluator", "monitor", "init", "space") if name in kwargs}
    search = TaylorGLO(**TINY | options)
    quiet_trainer(api, tmp_path, callbacks=[search], max_epochs=1, **kwargs).fit(module, **data)
    assert [c.error for c in search.result.history if c.error] == []
    assert search.result.failed == 0
    if search.evaluator != "auto":
        assert search.result.settings["evaluator"] == search.evaluator  # no falling back
    return search


# Somebody else's network


def kornia_vit(api):
    pytest.importorskip("kornia")
    try:
        from kornia.models.vit import VisionTransformer
    except ImportError:  # kornia 0.8
        from kornia.contrib import VisionTransformer

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = VisionTransformer(
                image_size=8, patch_size=4, in_channels=1, embed_dim=16, depth=1, num_heads=2, dropout_rate=0.1
            )
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x):
            return self.head(self.encoder(x)[:, 0])

    return classifier(api)(Vit())


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_a_vision_transformer_of_kornia(tmp_path, evaluator):
    module = kornia_vit(pl)
    # It keeps the results of its last pass, which cannot be copied with it
    module(torch.zeros(1, 1, 8, 8))
    fit(tmp_path, module, loaders(images=True), evaluator=evaluator)


# Per-pixel targets


class Segmentation(pl.LightningModule):
    """Logits of shape (N, n, H, W) and targets (N, H, W), of which some pixels have no label."""

    def __init__(self, criterion=None):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
        self.criterion = nn.CrossEntropyLoss(ignore_index=255) if criterion is None else criterion

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        assert logits.shape == (len(x), 3, 6, 6)
        self.log("val/acc", (logits.argmax(1) == y)[y != 255].float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def pixels():
    x = torch.randn(24, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.bucketize(x[:, 0], torch.tensor([-0.5, 0.5]))
    y[:, 0] = 255
    data = torch.utils.data.TensorDataset(x, y)
    return {"train_dataloaders": loader(data, batch_size=8), "val_dataloaders": loader(data, batch_size=8)}


@pytest.mark.parametrize("evaluator", ["vectorized", "trainer"])
def test_segmentation(tmp_path, evaluator):
    module = Segmentation()
    fit(tmp_path, module, pixels(), evaluator=evaluator)
    assert module.criterion.ignore_index == 255


# Multi-label targets, however the loss is written


class MultiLabel(classifier(pl)):
    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/acc", ((self(x) > 0) == y.bool()).float().mean())


def labels():
    """Samples of one or two labels."""
    x, y = blobs().tensors
    hot = nn.functional.one_hot(y, CLASSES).float()
    hot[::2, 0] = 1.0
    return dict.fromkeys(("train_dataloaders", "val_dataloaders"), loader(torch.utils.data.TensorDataset(x, hot)))


@pytest.mark.parametrize("evaluator", ["vectorized", "trainer"])
@pytest.mark.parametrize(
    "criterion",
    [nn.BCEWithLogitsLoss(), lambda logits, y: nn.functional.binary_cross_entropy_with_logits(logits, y)],
    ids=["module", "own"],
)
def test_multi_label_targets(tmp_path, criterion, evaluator):
    search = fit(tmp_path, MultiLabel(criterion=criterion), labels(), evaluator=evaluator, space="binary_taylor")
    assert {c.criterion.losses[0].family for c in search.result.history} == {"binary_taylor"}


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (nn.MultiLabelSoftMarginLoss(), "criterion is MultiLabelSoftMarginLoss. TaylorGLO replaces"),
        # torch itself takes these, though they are no probabilities
        (nn.CrossEntropyLoss(), "the class probabilities of a target must add up to 1"),
    ],
)
def test_multi_label_targets_that_are_refused(tmp_path, criterion, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, MultiLabel(criterion=criterion), labels())


# Compiled parts


@pytest.mark.parametrize("evaluator", ["vectorized", "trainer"])
def test_a_compiled_network_within(tmp_path, evaluator):
    module = seeded(classifier(pl))
    module.net = torch.compile(module.net, backend="eager")
    before = module.net.state_dict().keys()
    fit(tmp_path, module, loaders(), evaluator=evaluator)
    assert module.net.state_dict().keys() == before


def test_a_network_compiled_in_place(tmp_path):
    module = seeded(classifier(pl))
    module.net.compile(backend="eager")
    fit(tmp_path, module, loaders(), evaluator="trainer")


def test_a_compiled_loss(tmp_path):
    module = seeded(classifier(pl), criterion=torch.compile(nn.CrossEntropyLoss(label_smoothing=0.1), backend="eager"))
    search = fit(tmp_path, module, loaders(), evaluator="trainer")
    assert isinstance(module.criterion, TaylorGLOLoss) == (search.result.kept == "metalearned")


# Styles of modules


class InForward(pl.LightningModule):
    """The loss is computed in ``forward``, as Hugging Face's models do, from batches that are dictionaries."""

    def __init__(self):
        super().__init__()
        self.net, self.loss_fn = mlp(), nn.CrossEntropyLoss()

    def forward(self, features, labels=None):
        logits = self.net(features)
        loss = None if labels is None else self.loss_fn(logits, labels)
        return {"loss": loss, "logits": logits}

    def training_step(self, batch, batch_idx):
        return self(**batch)["loss"]

    def validation_step(self, batch, batch_idx):
        self.log("val/acc", accuracy(self(**batch)["logits"], batch["labels"]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Stepped(classifier(pl)):
    """One ``_step`` for training and validation, which logs the loss in both."""

    def _step(self, batch, stage):
        x, y = batch
        logits = self(x)
        loss = self.criterion(logits, y)
        self.log_dict({f"{stage}/loss": loss, f"{stage}/acc": accuracy(logits, y)}, on_epoch=True, on_step=False)
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        return self._step(batch, "val")


def dictionaries():
    def collate(samples):
        return dict(zip(("features", "labels"), torch.utils.data.default_collate(samples), strict=True))

    data = loader(blobs(), collate_fn=collate)
    return {"train_dataloaders": data, "val_dataloaders": data}


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_a_loss_within_forward_and_dictionaries(tmp_path, evaluator):
    fit(tmp_path, InForward(), dictionaries(), loss="loss_fn", evaluator=evaluator)


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_one_step_for_both(tmp_path, evaluator):
    fit(tmp_path, Stepped(), loaders(), evaluator=evaluator)
