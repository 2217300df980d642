"""What one batch shows of a module, and what is refused before anything is trained."""

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import FEATURES, blobs, loader, loaders
from helpers.fits import inner_fit
from helpers.modules import accuracy, classifier, seeded
from torch import nn
from torch.optim import SGD, lr_scheduler

from tglo_lightning.evaluation import probe

Classifier = classifier(pl)


def seen(tmp_path, module, data=None, **kwargs):
    return probe(inner_fit(pl, tmp_path, module, data, **kwargs))


def test_what_is_seen(tmp_path):
    fit = inner_fit(pl, tmp_path, seeded(Classifier))
    before = {name: value.clone() for name, value in fit.module.state_dict().items()}
    found = probe(fit)
    assert found.num_classes == 3
    assert found.inputs == [[16, FEATURES], [16]]
    assert {stage: of["lengths"] for stage, of in found.identity["data"].items()} == {"train": [96], "val": [48]}
    assert fit.epoch_batches == 6
    assert all(torch.equal(before[name], value) for name, value in fit.module.state_dict().items())
    assert found.identity == probe(fit).identity


def test_a_batch_may_be_a_tensor(tmp_path):
    class Table(Classifier):
        def training_step(self, batch, batch_idx):
            return self.criterion(self(batch[:, :-1]), batch[:, -1].long())

        def validation_step(self, batch, batch_idx):
            self.log("val/acc", accuracy(self(batch[:, :-1]), batch[:, -1].long()))

    x, y = blobs().tensors
    table = torch.cat([x, y[:, None].float()], dim=1)
    data = {"train_dataloaders": loader(table), "val_dataloaders": loader(table)}
    assert seen(tmp_path, seeded(Table), data).inputs == [[16, FEATURES + 1]]


class NotCalled(Classifier):
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


class OfTheLoss(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val/acc", self.criterion(self(batch[0]), batch[1]))


class Parts(Classifier):
    class Loss(nn.Module):
        def forward(self, logits, target):
            return {"loss": nn.functional.cross_entropy(logits, target)}

    def __init__(self):
        super().__init__(criterion=self.Loss())

    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])["loss"]


class FewOutputs(Classifier):
    def __init__(self):
        super().__init__(nn.Linear(FEATURES, 2))


class Unlogged(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", accuracy(self(batch[0]), batch[1]))


REFUSED = {
    NotCalled: "does not call it",
    OfTheLoss: "is computed from the loss that is to be replaced",
    Parts: "returns a dict; TaylorGLO replaces losses that return a tensor",
    FewOutputs: "the targets hold class 2, but the network has 2 outputs",
    Unlogged: "is not logged by Unlogged; logged: train/loss, val/accuracy",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=REFUSED[kind]):
        seen(tmp_path, seeded(kind))


@pytest.mark.parametrize(("of", "what"), [("train", "nothing to train on"), ("val", "validation loader gave no batch")])
def test_empty_data(tmp_path, of, what):
    data = loaders() | {f"{of}_dataloaders": loader(blobs(4), drop_last=True)}
    with pytest.raises(ValueError, match=what):
        seen(tmp_path, seeded(Classifier), data)


class FixedRates(Classifier):
    class Fixed(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [0.1]

    def configure_optimizers(self):
        optimizer = SGD(self.parameters(), 0.1)
        return [optimizer], [self.Fixed(optimizer)]


def test_a_schedule_that_no_factor_reaches_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="Fixed sets learning rates of its own"):
        seen(tmp_path, seeded(FixedRates))


class LossOverSelf(Classifier):
    def __init__(self):
        super().__init__()
        self.predict = lambda x: self.net(x)

    def training_step(self, batch, batch_idx):
        return self.criterion(self.predict(batch[0]), batch[1])


class OptimizerOverSelf(Classifier):
    def __init__(self):
        super().__init__()
        self.make = lambda: SGD(self.parameters(), 0.1)

    def configure_optimizers(self):
        return self.make()


@pytest.mark.parametrize("kind", [LossOverSelf, OptimizerOverSelf])
def test_a_copy_that_shares_with_the_module_is_refused(tmp_path, kind):
    with pytest.raises(RuntimeError, match="of the module itself"):
        seen(tmp_path, seeded(kind))
