"""Trainers and callbacks of Lightning around the search."""

import csv
import re

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs, loader, loaders
from helpers.modules import TINY, classifier, cnn, quiet_trainer, seeded, theta_of

from tglo_lightning import AttractionMonitor, TaylorGLO
from tglo_lightning.losses import TaylorGLOLoss


def winning(api):
    """A class whose metric any TaylorGLO loss wins by, so that what comes after the swap is tested too."""

    class Winning(classifier(api)):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("val/taylor", float(isinstance(self.criterion, TaylorGLOLoss)))

    return Winning


def fit(api, tmp_path, module, data=None, callbacks=(), evaluator="trainer", **kwargs):
    search = TaylorGLO(monitor="val/taylor", evaluator=evaluator, **TINY)
    trainer = quiet_trainer(api, tmp_path, callbacks=[search, *callbacks], **kwargs)
    trainer.fit(module, **(loaders() if data is None else data))
    assert [c.error for c in search.result.history if c.error] == []
    assert search.result.kept == "metalearned"
    assert module.criterion.theta.tolist() == theta_of(search.result.best)
    return trainer


def averaging(api, kind):
    if kind == "swa":
        return api.callbacks.StochasticWeightAveraging(0.1, swa_epoch_start=1)
    if kind == "ema":
        return api.callbacks.EMAWeightAveraging(decay=0.9)
    return api.callbacks.WeightAveraging(avg_fn=lambda averaged, current, n: averaged + (current - averaged) / (n + 1))


@pytest.mark.parametrize("kind", ["swa", "ema", "weights"])
def test_the_usual_callbacks_together(api, tmp_path, kind):
    """What a tuned training has: the loss is swapped before the first of them looks."""
    callbacks = api.callbacks
    checkpoints = callbacks.ModelCheckpoint(tmp_path / "ckpt", monitor="val/acc", mode="max", save_last=True)
    stop = callbacks.EarlyStopping("train/loss", patience=10)
    rates = callbacks.LearningRateMonitor("step")
    logger = api.loggers.CSVLogger(tmp_path)
    module = seeded(winning(api), cnn())
    trainer = fit(
        api,
        tmp_path,
        module,
        loaders(images=True),
        [checkpoints, stop, rates, averaging(api, kind)],
        max_epochs=3,
        enable_checkpointing=True,
        logger=logger,
    )
    # SWA goes through the data once more for BatchNorm
    assert trainer.current_epoch == (4 if kind == "swa" else 3)
    with open(f"{logger.log_dir}/metrics.csv") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["lr-SGD"]]
    # The rates of the outer fit only, from its first step on
    assert steps[:18] == list(range(18))
    last = torch.load(tmp_path / "ckpt" / "last.ckpt", weights_only=True)
    assert last["state_dict"]["criterion.theta"].tolist() == module.criterion.theta.tolist()
    again = seeded(classifier(api), cnn())
    quiet_trainer(api, tmp_path, callbacks=[TaylorGLO(monitor="val/taylor")]).validate(
        again, loader(blobs(48, images=True)), ckpt_path=checkpoints.best_model_path
    )
    assert again.criterion.theta.tolist() == module.criterion.theta.tolist()


def test_an_early_stop_on_the_trained_loss_starts_after_the_swap(api, tmp_path):
    """Values of the original loss and of the new one never meet in ``best_score``."""
    seen = []

    class Spy(winning(api)):
        def training_step(self, batch, batch_idx):
            seen.append(type(self.criterion))
            return super().training_step(batch, batch_idx)

    stop = api.callbacks.EarlyStopping("train/loss", patience=100)
    fit(api, tmp_path, Spy(), callbacks=[stop])
    assert set(seen[-12:]) == {TaylorGLOLoss}
    assert stop.wait_count < 2


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_autocast(api, tmp_path, evaluator):
    """In bfloat16: ``precision="16-mixed"``, which scales gradients, Lightning runs on CUDA only."""
    seen = set()

    class Seen(winning(api)):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            seen.add(logits.dtype)
            loss = self.criterion(logits, y)
            assert loss.dtype == torch.float32
            self.log("train/loss", loss)
            return loss

    fit(api, tmp_path, Seen(), precision="bf16-mixed", evaluator=evaluator)
    assert seen == {torch.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize("finder", ["batch size", "learning rate"])
def test_finders_beside_it(tmp_path, finder):
    """Both callbacks run a few steps before ``on_fit_start`` ends, on a module whose state they put back."""

    class Sized(winning(pl)):
        batch_size = 8

        def train_dataloader(self):
            return loader(blobs(seed=1), shuffle=True, batch_size=self.batch_size)

        def val_dataloader(self):
            return loader(blobs(48, seed=2))

    def callback():
        if finder == "batch size":
            return pl.callbacks.BatchSizeFinder("power", max_trials=3, steps_per_trial=1)
        return pl.callbacks.LearningRateFinder(num_training_steps=8, early_stop_threshold=None)

    bare = Sized()
    quiet_trainer(pl, tmp_path, callbacks=[callback()], enable_checkpointing=True).fit(bare)
    for first in (True, False):
        search = TaylorGLO(monitor="val/taylor", evaluator="trainer", **TINY)
        callbacks = [callback(), search] if first else [search, callback()]
        module = Sized()
        trainer = quiet_trainer(pl, tmp_path, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(module)
        assert search.result.failed == 0
        assert module.criterion.theta.tolist() == theta_of(search.result.best)
        assert trainer.current_epoch == 2
        assert module.batch_size == bare.batch_size


def test_both_of_ours(either_api, tmp_path):
    fit(either_api, tmp_path, winning(either_api)(), callbacks=[AttractionMonitor()])


def test_after_the_search_it_takes_no_part_in_the_steps():
    """What costs a fit time would be a hook of its batches or steps."""
    hooks = {name for name in dir(TaylorGLO) if getattr(TaylorGLO, name) is not getattr(pl.Callback, name, None)}
    assert "on_fit_start" in hooks
    assert not [name for name in hooks if name.startswith("on_") and re.search("batch|step|backward|grad", name)]
