"""Modules as they are published, used untouched: the callback finds the loss, wherever it is."""

import dataclasses
import warnings
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from helpers.data import blobs, loader, loaders
from helpers.modules import TINY, accuracy, either_api, mlp, quiet_trainer, seeded
from torch import nn

from tglo_lightning import TaylorGLO, TaylorGLOLoss, load_from_checkpoint
from tglo_lightning.evaluation import VectorizedEvaluator
from tglo_lightning.search import Portfolio

__all__ = ["either_api"]


class Base(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val/acc", accuracy(logits, y))
        self.log("val/loss", F.cross_entropy(logits, y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Inline(Base):
    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train/loss", loss)
        return loss


class SharedStep(Base):
    """The weights are a buffer, the values come one by one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("class_weights", torch.tensor([1.0, 2.0, 0.5]))

    def step(self, batch):
        x, y = batch
        return F.cross_entropy(self(x), y, weight=self.class_weights, reduction="none").mean()

    def training_step(self, batch, batch_idx):
        return {"loss": self.step(batch)}


class LogSoftmax(Base):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.nll_loss(F.log_softmax(self(x), dim=1), y)


class TrainingAndValidation(Base):
    def __init__(self):
        super().__init__()
        self.train_loss, self.val_loss = nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.train_loss(self(x), target=y)


class InSetup(Base):
    def setup(self, stage):
        self.criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self(x), y)


class InConfigureModel(InSetup):
    def setup(self, stage):
        pass

    def configure_model(self):
        self.criterion = nn.CrossEntropyLoss()


class WithLabels(nn.Module):
    """A model that computes its loss, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x, labels=None):
        logits = self.net(x)
        loss = None if labels is None else nn.CrossEntropyLoss()(logits.view(-1, 3), labels.view(-1))
        return SimpleNamespace(loss=loss, logits=logits)


class InModel(Base):
    def __init__(self):
        super().__init__()
        self.net = WithLabels()

    def forward(self, x):
        return self.net(x).logits

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.net(x, labels=y).loss


class FocalLoss(nn.modules.loss._WeightedLoss):
    def __init__(self, alpha=None, ignore_index=None, reduction=None):
        super().__init__()
        self.alpha, self.ignore_index, self.reduction = alpha, ignore_index, reduction

    def forward(self, logits, target):
        entropy = F.cross_entropy(logits, target, weight=self.alpha, reduction="none")
        return (1 - torch.exp(-entropy)) ** 2 * entropy


class LossOfOnesOwn(Base):
    def __init__(self):
        super().__init__()
        self.loss_fn = FocalLoss(torch.tensor([1.0, 2.0, 0.5]))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss_fn(self(x), y).mean()


class PerToken(Base):
    """Predicts a class at every position; padding is ignored."""

    def forward(self, x):
        return self.net(x.unsqueeze(1).expand(-1, 4, -1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        tokens = torch.stack([y, y, y, torch.full_like(y, -1)], dim=1)
        return F.cross_entropy(self(x).view(-1, 3), tokens.view(-1), ignore_index=-1)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/acc", accuracy(self(x)[:, 0], y))


class OneOutput(Base):
    """Whether it is class 0."""

    def forward(self, x):
        return self.net(x)[:, 0]

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.binary_cross_entropy_with_logits(self(x), (y == 0).float())

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/acc", ((self(x) > 0) == (y == 0)).float().mean())


class OneProbability(OneOutput):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.binary_cross_entropy(torch.sigmoid(self(x)), (y == 0).float())


class MultiLabel(Base):
    def __init__(self):
        super().__init__()
        self.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 1.0, 3.0]))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self(x), F.one_hot(y, 3).float())

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/acc", ((self(x) > 0) == F.one_hot(y, 3)).float().mean())


class WeightedSamples(MultiLabel):
    """Each sample has a weight, in another tensor for each batch."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        weight = 0.5 + y.unsqueeze(1)
        return F.binary_cross_entropy_with_logits(self(x), F.one_hot(y, 3).float(), weight=weight)


class Regression(Base):
    def __init__(self):
        super().__init__()
        self.criterion = nn.SmoothL1Loss()

    def forward(self, x):
        return self.net(x)[:, 0]

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self(x), y.float())

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/acc", -(self(x) - y).abs().mean())


class InlineRegression(Regression):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self(x), y.float())


class Kept(TaylorGLO):
    """Searches, then keeps the original or takes the winner, whichever is wanted."""

    kept = "original"

    def _search(self, trainer, pl_module):
        return dataclasses.replace(super()._search(trainer, pl_module), kept=self.kept)


class Taken(Kept):
    kept = "metalearned"


def fit(tmp_path, kind, search=None, api=pl, data=None, **kwargs):
    module = seeded(kind)
    trainer = quiet_trainer(api, tmp_path, callbacks=[search] if search else [], max_epochs=1, **kwargs)
    trainer.fit(module, **(data or loaders()))
    return module, trainer


def searched(cls=Kept, monitor="val/acc", **kwargs):
    return cls(monitor=monitor, **(TINY | {"report": False} | kwargs))


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (Inline, "F.cross_entropy"),
        (SharedStep, "F.cross_entropy"),
        (LogSoftmax, "F.nll_loss"),
        (TrainingAndValidation, "train_loss"),
        (InSetup, "criterion"),
        (InConfigureModel, "criterion"),
        (InModel, "F.cross_entropy"),
        (LossOfOnesOwn, "loss_fn"),
        (PerToken, "F.cross_entropy"),
        (OneOutput, "F.binary_cross_entropy_with_logits"),
        (OneProbability, "F.binary_cross_entropy"),
        (MultiLabel, "criterion"),
        (WeightedSamples, "F.binary_cross_entropy_with_logits"),
        (Regression, "criterion"),
        (InlineRegression, "F.mse_loss"),
    ],
)
def test_untouched(tmp_path, kind, where):
    """The loss is found, evaluators agree, and a fit that keeps the original is the fit without the callback."""
    plain = fit(tmp_path, kind)[0].state_dict()
    fitness = []
    for evaluator in ("trainer", VectorizedEvaluator()):
        search = searched(evaluator=evaluator, space="shape")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "(?s).*(Falling back|Training a population)")
            module, _ = fit(tmp_path, kind, search)
        fitness.append([candidate.fitness for candidate in search.result.history])
    assert [slot.label for slot in search.slots] == [where]
    assert fitness[0] == pytest.approx(fitness[1], rel=1e-4)
    assert len(set(fitness[0])) > 1
    assert module.state_dict().keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "space", "message"),
    [
        (MultiLabel, "gce", "`space` holds losses of classes targets, but .* one of binary targets.*'binary_focal'"),
        (
            Regression,
            "binary_focal",
            "binary targets, but .* of regression targets.* pass one of 'barron', 'huber'",
        ),
        (Inline, "huber", "regression targets, but .* one of classes targets"),
    ],
)
def test_a_space_for_other_targets(tmp_path, kind, space, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, kind, searched(space=space))


@pytest.mark.parametrize(
    ("loss", "family"),
    [
        (lambda output, y: (output[:, 0] - y[:, 0]).abs().mean(), "barron"),
        (lambda output, y: -(torch.sigmoid(output) * (y > 0.5)).mean(), "binary_taylor"),
        (lambda output, y: -(output.log_softmax(1) * y).sum(1).mean(), "taylorglo"),
    ],
)
def test_the_targets_tell_what_a_loss_of_ones_own_is_for(tmp_path, loss, family):
    class Own(Base):
        def __init__(self):
            super().__init__()
            self.loss = loss

        def training_step(self, batch, batch_idx):
            x, y = batch
            hot = F.one_hot(y, 3).float()
            target = {"barron": 3 * hot, "binary_taylor": 1 - hot, "taylorglo": hot}[family]
            return self.loss(self(x), target)

    search = searched(space="shape", evaluator="trainer")
    fit(tmp_path, Own, search)
    assert search.result.history[0].criterion.losses[0].family == family


@pytest.mark.parametrize(
    ("kind", "families"),
    [(MultiLabel, {"binary_smoothing", "binary_focal", "asymmetric"}), (Regression, {"huber", "barron"})],
)
def test_the_portfolio_knows_rivals(tmp_path, kind, families):
    search = searched(space="original", strategy=Portfolio(rates=[1.0]), population=6)
    fit(tmp_path, kind, search)
    tried = {spec.family for candidate in search.result.history for spec in candidate.criterion.losses}
    assert families <= tried


@pytest.mark.parametrize("kind", [Inline, SharedStep, InSetup])
def test_the_winner_travels_in_checkpoints(tmp_path, kind):
    search = searched(Taken, evaluator="vectorized")
    module, trainer = fit(tmp_path, kind, search)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = load_from_checkpoint(kind, tmp_path / "x.ckpt")
    (slot,) = search.slots
    for each in (module, loaded):
        loss = slot.get(each)
        assert isinstance(loss, TaylorGLOLoss)
        assert tuple(loss.theta.tolist()) == search.result.best.criterion.losses[0].theta
    batch = blobs(8).tensors
    assert torch.equal(module.training_step(batch, 0), loaded.training_step(batch, 0)) if kind is InSetup else True
    if kind is SharedStep:
        expected = slot.get(module)(module(batch[0]), batch[1]).mean()
        assert torch.equal(loaded.training_step(batch, 0)["loss"], expected)


def test_a_fit_that_goes_on_from_a_checkpoint(tmp_path):
    search = searched(Taken, evaluator="trainer")
    module, trainer = fit(tmp_path, Inline, search)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = searched(Taken, evaluator="trainer")
    other = seeded(Inline, seed=1)
    quiet_trainer(pl, tmp_path, callbacks=[again], max_epochs=2).fit(other, ckpt_path=tmp_path / "x.ckpt", **loaders())
    assert again.result.to_dict() == search.result.to_dict()
    assert next(iter(again.slots)).get(other).theta.tolist() == next(iter(search.slots)).get(module).theta.tolist()


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_under_either_name_and_compiled(tmp_path, either_api, compile):
    if compile and either_api is not pl:
        pytest.skip("once is enough")
    kind = type("Either", (either_api.LightningModule,), {k: v for k, v in vars(Base).items() if k != "__init__"})

    def init(self):
        super(kind, self).__init__()
        self.net = mlp()

    kind.__init__, kind.training_step = init, Inline.training_step
    search = searched(Taken, evaluator=VectorizedEvaluator(compile=compile))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(?s).*(Falling back|Going on uncompiled)")
        module, _ = fit(tmp_path, kind, search, either_api)
    assert module.inline_cross_entropy.criterion.theta.tolist() == list(search.result.criterion.losses[0].theta)


class Several(Base):
    def training_step(self, batch, batch_idx):
        x, y = batch
        first = F.cross_entropy(self(x), y)
        return first + 0.4 * F.cross_entropy(self.net[0](x)[:, :3], y)


def test_several_losses_are_listed_and_can_be_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"calls 2 losses; name .*\n  'F.cross_entropy' \(test_any_module.py:\d+\)\n  "
    ):
        fit(tmp_path, Several, searched())
    search = searched(Taken, loss="F.cross_entropy#2", evaluator="trainer")
    module, _ = fit(tmp_path, Several, search)
    x, y = blobs(8).tensors
    expected = F.cross_entropy(module(x), y) + 0.4 * module.inline_cross_entropy_2.criterion(module.net[0](x)[:, :3], y)
    assert torch.equal(module.training_step((x, y), 0), expected)
    with pytest.raises(ValueError, match=r"`loss='F.nll_loss'`: training_step of Several does not call it. It calls\n"):
        fit(tmp_path, Several, searched(loss="F.nll_loss"))


def test_no_loss_to_be_found(tmp_path):
    class Written(Base):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return -self(x).log_softmax(1)[range(len(y)), y].mean()

    with pytest.raises(ValueError, match=r"training_step of Written calls no loss that TaylorGLO can replace\. It"):
        fit(tmp_path, Written, searched())


class Parts(nn.Module):
    def forward(self, logits, target):
        return {"loss": F.cross_entropy(logits, target)}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Parts(), "returns a dict; TaylorGLO replaces losses that return a tensor"),
        (FocalLoss(reduction="batchmean"), "in place of FocalLoss, with its .*reduction: .*'batchmean'"),
    ],
)
def test_options_of_a_loss_are_never_dropped(tmp_path, loss, message):
    class Own(LossOfOnesOwn):
        def training_step(self, batch, batch_idx):
            x, y = batch
            value = self.loss_fn(self(x), y)
            return value["loss"] if isinstance(value, dict) else value.mean()

    def build():
        module = Own()
        module.loss_fn = loss
        return module

    with pytest.raises((ValueError, RuntimeError), match=message):
        fit(tmp_path, build, searched(), data={"train_dataloaders": loader(), "val_dataloaders": loader()})
