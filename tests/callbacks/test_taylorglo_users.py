"""Modules, Trainers and data as users have them."""

import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from helpers.data import Stream, blobs, loader, loaders
from helpers.modules import TINY, classifier, cnn, mlp, quiet_trainer, seeded, theta_of
from pytorch_lightning.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import Budget


class Module(classifier(pl)):
    """Any TaylorGLO loss wins, so that what comes after the swap is tested too."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)
        self.log("val/taylor", float(isinstance(self.criterion, TaylorGLOLoss)))


def fit(tmp_path, module, data=None, callbacks=(), **kwargs):
    names = (
        "budget",
        "init",
        "monitor",
        "evaluator",
        "generations",
    )
    options = {name: kwargs.pop(name) for name in names if name in kwargs}
    search = TaylorGLO(**(TINY | {"evaluator": "trainer", "monitor": "val/taylor"} | options))
    trainer = quiet_trainer(pl, tmp_path, callbacks=[search, *callbacks], **kwargs)
    trainer.fit(module, **(loaders() if data is None else data))
    return search


def succeeded(search, kept="metalearned"):
    assert [c.error for c in search.result.history if c.error] == []
    assert search.result.kept == kept
    return True


# What modules do


def test_hyperparameters_and_torchmetrics(tmp_path):
    class Careful(Module):
        def __init__(self, width: int = 16, **kwargs):
            super().__init__(mlp())
            self.save_hyperparameters()
            self.train_acc = torchmetrics.Accuracy(task="multiclass", num_classes=3)
            self.val_metrics = torchmetrics.MetricCollection(
                {"val/acc": torchmetrics.Accuracy(task="multiclass", num_classes=3)}
            )

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            self.train_acc(logits, y)
            self.log("train/acc", self.train_acc, on_step=False, on_epoch=True)
            return {"loss": self.criterion(logits, y), "logits": logits.detach()}

        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.val_metrics.update(self(x), y)
            self.log_dict(self.val_metrics)
            self.log("val/taylor", float(isinstance(self.criterion, TaylorGLOLoss)))

    module = Careful(width=16)
    search = fit(tmp_path, module, logger=CSVLogger(tmp_path))
    assert succeeded(search)
    assert module.train_acc.update_count == 0
    assert fit(tmp_path, Careful(), monitor="val/acc").result.failed == 0


def test_the_logger_the_trainer_and_the_datamodule_are_at_hand(tmp_path):
    seen = []

    class Curious(Module):
        def on_fit_start(self):
            self.prefix = f"{self.trainer.max_epochs} epochs"

        def training_step(self, batch, batch_idx):
            self.logger.experiment.add_scalar("x", 1, self.global_step)
            self.logger.log_metrics({"y": 1.0}, step=self.global_step)
            assert self.loggers
            assert self.trainer.datamodule.batch_size == 16
            assert self.prefix
            seen.append(self.trainer.datamodule)
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            steps = self.trainer.estimated_stepping_batches
            assert len(self.trainer.datamodule.train_dataloader()) == 6
            return [optimizer], [
                {"scheduler": torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=steps), "interval": "step"}
            ]

    class Data(pl.LightningDataModule):
        batch_size = 16

        def train_dataloader(self):
            return loaders()["train_dataloaders"]

        def val_dataloader(self):
            return loaders()["val_dataloaders"]

    class Logger(CSVLogger):
        @property
        def experiment(self):
            experiment = super().experiment
            experiment.add_scalar = lambda *args: None
            return experiment

    data = Data()
    assert succeeded(fit(tmp_path, Curious(), {"datamodule": data}, logger=Logger(tmp_path)))
    assert seen[-1] is data
    assert seen[0] is not data


@pytest.mark.parametrize("budget", [{"budget": 2}, {"budget": Budget(steps=10)}])
def test_schedules_see_the_candidates_budget(tmp_path, budget):
    epochs, steps = [], []

    class Scheduled(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            epochs.append(self.trainer.max_epochs)
            steps.append(self.trainer.estimated_stepping_batches)
            return {
                "optimizer": optimizer,
                "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs),
            }

    assert succeeded(fit(tmp_path, Scheduled(), max_epochs=7, **budget))
    # outer fit, a training that finds the loss, two rehearsals, candidates and finals
    assert epochs[0] == 7
    assert set(epochs[4:]) == {2}
    assert set(steps[4:]) == {12 if budget["budget"] == 2 else 10}


def test_one_cycle(tmp_path):
    class OneCycle(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters())
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=0.1, total_steps=self.trainer.estimated_stepping_batches
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    assert succeeded(fit(tmp_path, OneCycle()))
    assert succeeded(fit(tmp_path, OneCycle(), budget=2))


@pytest.mark.parametrize("budget", [{"budget": 2}, {"budget": Budget(steps=4)}])
def test_reduce_on_plateau(tmp_path, budget):
    class Plateau(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val/acc"}}

    assert succeeded(fit(tmp_path, Plateau(), **budget))


@pytest.mark.parametrize("evaluator", ["trainer", "auto"])
def test_manual_optimization(tmp_path, evaluator):
    class Manual(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    assert succeeded(fit(tmp_path, Manual(), evaluator=evaluator))


def test_layers_made_in_setup_and_configure_model(tmp_path):
    class Late(Module):
        def __init__(self):
            super().__init__(nn.Identity())
            self.calls = 0

        def setup(self, stage):
            self.calls += 1
            self.net = nn.Linear(8, 16)

        def configure_model(self):
            if not hasattr(self, "last"):
                self.last = nn.Linear(16, 3)

        def forward(self, x):
            return self.last(self.net(x).relu())

    module = Late()
    assert succeeded(fit(tmp_path, module))
    assert module.calls == 1
    assert succeeded(fit(tmp_path, Late(), init=Late))
    assert succeeded(fit(tmp_path, Late(), init="reset"))


def test_callbacks_of_the_module_stay_outside(tmp_path):
    class WithCallbacks(Module):
        def configure_callbacks(self):
            return [ModelCheckpoint(tmp_path / "of-the-module")]

    assert succeeded(fit(tmp_path, WithCallbacks(), enable_checkpointing=True, init=WithCallbacks))
    assert len(list((tmp_path / "of-the-module").iterdir())) == 1


def test_training_metric_without_validation(tmp_path):
    class TrainOnly(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mlp()
            self.loss_fn = nn.CrossEntropyLoss()

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self.net(x)
            self.log("acc", (logits.argmax(1) == y).float().mean(), on_epoch=True)
            return self.loss_fn(logits, y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    search = TaylorGLO("loss_fn", "acc", evaluator="trainer", **TINY)
    trainer = quiet_trainer(pl, tmp_path, callbacks=[search])
    trainer.fit(TrainOnly(), loader(shuffle=True))
    assert search.result.failed == 0


def test_validation_switched_off(tmp_path):
    with pytest.raises(ValueError, match=r"`monitor='val/acc'` is not logged by Module; logged: train/loss"):
        fit(tmp_path, Module(), limit_val_batches=0, monitor="val/acc")


# What Trainers do


@pytest.mark.parametrize(
    "kwargs",
    [
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
        {"precision": "64-true"},
        {"deterministic": True},
        {"val_check_interval": 0.5},
        {"check_val_every_n_epoch": 2},
        {"check_val_every_n_epoch": None, "val_check_interval": 4},
        {"max_epochs": -1, "max_steps": 9},
        {"min_epochs": 2, "max_time": "00:01:00:00"},
        {"overfit_batches": 1},
        {"inference_mode": False},
        {"profiler": "simple"},
        {"detect_anomaly": True},
        {
            "barebones": True,
            "enable_progress_bar": None,
            "enable_checkpointing": None,
            "logger": None,
            "enable_model_summary": None,
            "log_every_n_steps": None,
        },
    ],
    ids=lambda kwargs: "-".join(kwargs)[:30],
)
def test_trainer_arguments(tmp_path, kwargs):
    assert succeeded(fit(tmp_path, Module(cnn()), loaders(images=True), **kwargs))


def test_double_precision_reaches_the_loss(tmp_path):
    class Double(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            assert loss.dtype == torch.float64
            return loss

    assert succeeded(fit(tmp_path, Double(), precision="64-true"))


def test_theta_keeps_its_precision_in_half_precision(tmp_path):
    module = Module()
    search = fit(tmp_path, module, precision="bf16-true")
    assert module.criterion.theta.tolist() == theta_of(search.result.best)


def test_callbacks_beside_it(tmp_path):
    checkpoints = ModelCheckpoint(tmp_path / "ckpt", monitor="val/acc", mode="max", save_last=True)
    stop = EarlyStopping("val/acc", patience=10, mode="max")
    rates = LearningRateMonitor()
    others = [checkpoints, stop, rates, Timer(), GradientAccumulationScheduler({1: 2})]
    search = fit(tmp_path, Module(), callbacks=others, enable_checkpointing=True, logger=CSVLogger(tmp_path))
    assert succeeded(search)
    assert stop.wait_count + 1 <= 2
    best = torch.load(checkpoints.best_model_path, weights_only=True)
    assert best["state_dict"]["criterion.theta"].tolist() == theta_of(search.result.best)


def test_candidates_with_callbacks_of_lightning(tmp_path):
    search = fit(
        tmp_path,
        Module(),
        budget=Budget(epochs=3, callbacks=[LearningRateMonitor(), EarlyStopping("train/loss", patience=1)]),
        logger=CSVLogger(tmp_path),
    )
    assert succeeded(search)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "averaging", [lambda: StochasticWeightAveraging(0.1, swa_epoch_start=1), lambda: EMAWeightAveraging(decay=0.9)]
)
def test_weight_averaging(tmp_path, averaging, first):
    """The copy of the module that averages weights must have the metalearned loss, or its buffers do not line up."""

    class LossFirst(Module):
        def __init__(self):
            super().__init__()
            # Registered before BatchNorm's buffers
            del self.net
            self.net = cnn()

    def build():
        search = TaylorGLO(monitor="val/taylor", evaluator="trainer", **TINY)
        callbacks = [averaging(), search] if first else [search, averaging()]
        return search, quiet_trainer(pl, tmp_path, callbacks=callbacks, max_epochs=3)

    search, trainer = build()
    module = seeded(LossFirst)
    trainer.fit(module, **loaders(images=True))
    assert succeeded(search)
    assert module.criterion.theta.tolist() == theta_of(search.result.best)
    trainer.save_checkpoint(tmp_path / "averaged.ckpt")
    again, trainer = build()
    trainer.fit_loop.max_epochs = 4
    module = LossFirst()
    trainer.fit(module, **loaders(images=True), ckpt_path=tmp_path / "averaged.ckpt")
    assert module.criterion.theta.tolist() == theta_of(search.result.best) == theta_of(again.result.best)


def test_learning_rate_finder_before_the_fit(tmp_path):
    from pytorch_lightning.tuner import Tuner

    search = TaylorGLO(monitor="val/taylor", evaluator="trainer", **TINY)
    trainer = quiet_trainer(pl, tmp_path, callbacks=[search], max_epochs=1, enable_checkpointing=True)
    module = Module()
    Tuner(trainer).lr_find(module, **loaders(), num_training=8)
    trainer.fit(module, **loaders())
    assert succeeded(search)


def test_a_trainer_of_ones_own(tmp_path):
    class MyTrainer(pl.Trainer):
        pass

    search = TaylorGLO(monitor="val/taylor", evaluator="trainer", **TINY)
    trainer = MyTrainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[search],
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), **loaders())
    assert succeeded(search)


# What data do


def test_loaders_of_the_module(tmp_path):
    class OwnData(Module):
        def train_dataloader(self):
            return loader(blobs(seed=1), shuffle=True)

        def val_dataloader(self):
            return loader(blobs(48, seed=2))

    assert succeeded(fit(tmp_path, OwnData(), {}))


@pytest.mark.parametrize("monitor", ["val/taylor/dataloader_idx_0", "val/acc/dataloader_idx_1"])
def test_several_validation_loaders(tmp_path, monitor):
    data = {"train_dataloaders": loader(), "val_dataloaders": [loader(blobs(48, seed=2)), loader(blobs(48, seed=3))]}
    search = fit(tmp_path, Module(), data, monitor=monitor)
    assert search.result.failed == 0


@pytest.mark.parametrize("steps", [3, None])
def test_endless_data(tmp_path, steps):
    data = {"train_dataloaders": loader(Stream()), "val_dataloaders": loader(blobs(48, seed=2))}
    budget = {"budget": Budget(steps=steps) if steps else 1}
    assert succeeded(fit(tmp_path, Module(), data, limit_train_batches=4, **budget))


def test_endless_data_without_a_limit(tmp_path):
    data = {"train_dataloaders": loader(Stream()), "val_dataloaders": loader(blobs(48, seed=2))}
    assert succeeded(fit(tmp_path, Module(), data, max_steps=4, val_check_interval=2, budget=Budget(steps=3)))


def test_combined_loaders(tmp_path):
    class Combined(Module):
        def training_step(self, batch, batch_idx):
            (x, y), (u, _) = batch["labelled"], batch["other"]
            return self.criterion(self(x), y) + 0 * self(u).sum()

    data = {
        "train_dataloaders": {"labelled": loader(shuffle=True), "other": loader(shuffle=True)},
        "val_dataloaders": loader(blobs(48, seed=2)),
    }
    assert succeeded(fit(tmp_path, Combined(), data))


def test_any_iterable_of_batches(tmp_path):
    class Batches:
        def __iter__(self):
            return iter(loader())

    batches = Batches()
    assert succeeded(fit(tmp_path, Module(), {"train_dataloaders": batches, "val_dataloaders": batches}))


def test_a_datamodule_that_keeps_its_loaders(tmp_path):
    class Keeping(pl.LightningDataModule):
        def setup(self, stage):
            self.train = loader(shuffle=True, num_workers=1, persistent_workers=True)
            self.val = loader(blobs(48, seed=2))

        def train_dataloader(self):
            return self.train

        def val_dataloader(self):
            return self.val

    assert succeeded(fit(tmp_path, Module(), {"datamodule": Keeping()}))


def test_compiled_module(tmp_path):
    """What torch.compile puts into a module would, in a copy, train the module itself."""

    class NoLog(Module):
        # Compiling `self.log` is beyond torch 2.13, whatever the callbacks
        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.criterion(self(x), y)

        def validation_step(self, batch, batch_idx):
            pass

        def on_validation_epoch_end(self):
            self.log("val/taylor", float(isinstance(self.criterion, TaylorGLOLoss)))

    module = NoLog()
    assert succeeded(fit(tmp_path, torch.compile(module, backend="eager")))
    assert isinstance(module.criterion, TaylorGLOLoss)


def test_a_closure_over_the_module(tmp_path):
    """A lambda is not copied with the module: candidates would train the module itself."""

    class Closure(Module):
        def __init__(self):
            super().__init__()
            self.run = lambda x: self.net(x)

        def forward(self, x):
            return self.run(x)

    module = Closure()
    with pytest.raises(RuntimeError, match=r"reached net\.0\.weight of the module itself"):
        fit(tmp_path, module)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert succeeded(fit(tmp_path, Closure(), init=Closure))
