"""Checkpoints of modules whose loss was metalearned."""

import json

import pytest
import torch
from helpers.data import loader, loaders, split_datamodule
from helpers.modules import TINY, classifier, mlp, quiet_trainer, seeded, theta_of
from torch import nn

from tglo_lightning import TaylorGLO, load_from_checkpoint
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import SearchResult


def searching(metric="val/taylor", **kwargs):
    return TaylorGLO(monitor=metric, evaluator="trainer", **(TINY | kwargs))


def kind(api):
    class Module(classifier(api)):
        def __init__(self, net=None, criterion=None, width=4):
            super().__init__(net, criterion)
            self.save_hyperparameters("width")

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("val/taylor", float(isinstance(self.criterion, TaylorGLOLoss)))
            self.log("val/constant", 1.0)

    return Module


@pytest.fixture
def trained(api, tmp_path):
    """A fit with a metalearned loss, and its checkpoint."""
    search = searching()
    module = seeded(kind(api))
    trainer = quiet_trainer(api, tmp_path, callbacks=[search])
    trainer.fit(module, **loaders())
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    return module, search, path


def same(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


def test_result_is_in_the_checkpoint_as_plain_values(trained):
    _, search, path = trained
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["state_dict"]["criterion.theta"].tolist() == theta_of(search.result.best)
    (state,) = [value for key, value in checkpoint["callbacks"].items() if key.startswith("TaylorGLO")]
    assert SearchResult.from_dict(state["result"]).to_dict() == search.result.to_dict()
    json.dumps(state, allow_nan=False)


def test_resume_with_a_class_that_builds_cross_entropy(api, trained, tmp_path):
    _, search, path = trained
    again = searching()
    resumed = kind(api)()
    trainer = quiet_trainer(api, tmp_path, callbacks=[again], max_epochs=4)
    trainer.fit(resumed, **loaders(), ckpt_path=path)
    assert again.result.to_dict() == search.result.to_dict()
    assert resumed.criterion.theta.tolist() == theta_of(search.result.best)
    assert trainer.global_step == 24


def test_resume_equals_a_fit_without_a_break(api, tmp_path):
    """An epoch, a resume and another epoch give the weights of two epochs."""

    def data():
        return {"train_dataloaders": loader(), "val_dataloaders": loader()}

    whole = seeded(kind(api))
    quiet_trainer(api, tmp_path, callbacks=[searching()], max_epochs=2).fit(whole, **data())
    half = seeded(kind(api))
    trainer = quiet_trainer(api, tmp_path, callbacks=[searching()], max_epochs=1)
    trainer.fit(half, **data())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = kind(api)()
    quiet_trainer(api, tmp_path, callbacks=[searching()], max_epochs=2).fit(
        resumed, **data(), ckpt_path=tmp_path / "half.ckpt"
    )
    assert same(whole.state_dict(), resumed.state_dict())


def test_resume_where_the_original_was_kept(api, tmp_path):
    search = searching("val/constant")
    trainer = quiet_trainer(api, tmp_path, callbacks=[search], max_epochs=1)
    trainer.fit(kind(api)(), **loaders())
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    again = searching("val/constant")
    resumed = kind(api)()
    quiet_trainer(api, tmp_path, callbacks=[again], max_epochs=2).fit(
        resumed, **loaders(), ckpt_path=tmp_path / "kept.ckpt"
    )
    assert type(resumed.criterion) is nn.CrossEntropyLoss
    assert again.result.to_dict() == search.result.to_dict()


def test_resume_from_last_and_test_the_best(api, tmp_path):
    def build(search, epochs):
        checkpoints = api.callbacks.ModelCheckpoint(tmp_path / "ckpt", monitor="val/acc", mode="max", save_last=True)
        return quiet_trainer(
            api, tmp_path, callbacks=[search, checkpoints], max_epochs=epochs, enable_checkpointing=True
        )

    first = searching()
    data = split_datamodule(api)
    build(first, 2).fit(kind(api)(), datamodule=data)
    again = searching()
    trainer = build(again, 3)
    module = kind(api)()
    trainer.fit(module, datamodule=data, ckpt_path="last")
    assert again.result.to_dict() == first.result.to_dict()
    assert trainer.global_step == 18
    for path in ("best", "last", None):
        (metrics,) = trainer.test(datamodule=data, ckpt_path=path, verbose=False)
        assert 0 <= metrics["test/acc"] <= 1
    assert module.criterion.theta.tolist() == theta_of(first.result.best)


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_a_fresh_module_is_evaluated_from_the_checkpoint(api, trained, tmp_path, verb):
    module, _, path = trained
    search = searching()
    fresh = kind(api)()
    trainer = quiet_trainer(api, tmp_path, callbacks=[search])
    if verb == "predict":
        fresh.predict_step = lambda batch, batch_idx: fresh(batch[0])
    getattr(trainer, verb)(fresh, loader(), ckpt_path=path)
    assert same(fresh.state_dict(), module.state_dict())
    assert search.result is None or search.result.kept == "metalearned"


def test_load_from_checkpoint(api, trained):
    module, search, path = trained
    loaded = load_from_checkpoint(kind(api), path)
    assert same(loaded.state_dict(), module.state_dict())
    assert loaded.criterion.theta.tolist() == theta_of(search.result.best)
    assert loaded.hparams.width == 4
    assert load_from_checkpoint(kind(api), path, width=5).hparams.width == 5


def test_load_from_checkpoint_checks_the_weights(api, trained):
    _, _, path = trained
    wide = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="state_dict"):
        load_from_checkpoint(kind(api), path, net=wide)
    deeper = nn.Sequential(*mlp(), nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="Missing key"):
        load_from_checkpoint(kind(api), path, net=deeper)
    assert isinstance(load_from_checkpoint(kind(api), path, net=deeper, strict=False).criterion, TaylorGLOLoss)


def test_load_from_checkpoint_of_an_original_loss(api, tmp_path):
    trainer = quiet_trainer(api, tmp_path, max_epochs=1)
    module = kind(api)()
    trainer.fit(module, **loaders())
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    loaded = load_from_checkpoint(kind(api), tmp_path / "plain.ckpt")
    assert type(loaded.criterion) is nn.CrossEntropyLoss
    assert same(loaded.state_dict(), module.state_dict())


def test_lightnings_own_load_with_the_metalearned_class(api, trained):
    """Where the class builds a TaylorGLOLoss, Lightning's own way is enough."""
    module, search, path = trained
    loaded = kind(api).load_from_checkpoint(path, criterion=TaylorGLOLoss())
    assert loaded.criterion.theta.tolist() == theta_of(search.result.best)
    assert same(loaded.state_dict(), module.state_dict())


def test_load_from_checkpoint_with_weighted_loss(api, tmp_path):
    def build():
        return kind(api)(criterion=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])))

    trainer = quiet_trainer(api, tmp_path, callbacks=[searching()], max_epochs=1)
    module = build()
    trainer.fit(module, **loaders())
    trainer.save_checkpoint(tmp_path / "weighted.ckpt")
    loaded = load_from_checkpoint(
        kind(api), tmp_path / "weighted.ckpt", criterion=nn.CrossEntropyLoss(weight=torch.ones(3))
    )
    assert loaded.criterion.weight.tolist() == [1.0, 2.0, 3.0]
    assert same(loaded.state_dict(), module.state_dict())


def test_a_missing_file(tmp_path):
    import pytorch_lightning as pl

    with pytest.raises(FileNotFoundError):
        load_from_checkpoint(kind(pl), tmp_path / "nothing.ckpt")
