"""What an inner fit takes over, and the step of the winner in the outer fit."""

import os

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs, loader
from helpers.fits import CRITERIA, inner_fit, nested
from helpers.modules import classifier, quiet_trainer, seeded
from torch.optim import SGD, AdamW, lr_scheduler

from tglo_lightning import TaylorGLO
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import Budget, Criterion, Strategy

WINNER = Criterion(CRITERIA[0].losses, step=0.3)


class One(Strategy):
    """Proposes one criterion."""

    def ask(self):
        return [WINNER]

    def tell(self, costs):
        pass


class Rates(pl.loggers.CSVLogger):
    """Remembers the learning rates that are logged."""

    def __init__(self, folder):
        super().__init__(folder)
        self.rates = []

    def log_metrics(self, metrics, step=None):
        self.rates += [(step, value) for name, value in sorted(metrics.items()) if name.startswith("lr-")]


class Favours(classifier(pl)):
    """Prefers any metalearned loss."""

    def validation_step(self, batch, batch_idx):
        self.log("val/score", float(isinstance(self.criterion, TaylorGLOLoss)))

    def configure_optimizers(self):
        optimizer = SGD(self.parameters(), self.lr, momentum=0.9)
        return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, 8)]


class OneCycle(Favours):
    def configure_optimizers(self):
        groups = [
            {"params": self.net[0].parameters(), "lr": self.lr},
            {"params": self.net[3].parameters(), "lr": self.lr / 2},
        ]
        optimizer = AdamW(groups, weight_decay=0.1)
        schedule = lr_scheduler.OneCycleLR(optimizer, [self.lr, self.lr / 2], total_steps=60)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Early(Favours):
    """Keeps its optimizer; the schedule is made anew whenever it is asked for."""

    def __init__(self, lr=0.1):
        super().__init__(lr=lr)
        self.optimizer = SGD(self.parameters(), lr)

    def configure_optimizers(self):
        return [self.optimizer], [lr_scheduler.LinearLR(self.optimizer, 0.5, total_iters=8)]


@pytest.mark.parametrize("kind", [Favours, OneCycle, Early])
def test_the_fit_trains_at_the_winners_rate_and_so_does_one_that_resumes(tmp_path, kind):
    data = {"train_dataloaders": loader(), "val_dataloaders": loader(blobs(48, seed=2))}

    def fit(name, module, *callbacks, epochs=4, **kwargs):
        logger = Rates(tmp_path / name)
        callbacks = [*callbacks, pl.callbacks.LearningRateMonitor("step")]
        trainer = quiet_trainer(pl, tmp_path / name, callbacks=callbacks, logger=logger, max_epochs=epochs)
        trainer.fit(module, **data, **kwargs)
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        return trainer, [p.detach().clone() for p in module.parameters()], rates, logger.rates

    def search():
        return TaylorGLO(
            monitor="val/score",
            generations=1,
            strategy=One(),
            budget=Budget(steps=1),
            finals=1,
            evaluator="trainer",
            report=False,
            resume=False,
        )

    spec = WINNER.losses[0]
    written = seeded(kind, lr=0.1 * WINNER.step)
    written.criterion = spec.build(written.criterion)
    _, weights, rates, logged = fit("written", written)
    callback = search()
    module = seeded(kind, lr=0.1)
    _, own, own_rates, own_logged = fit("searched", module, callback)
    assert callback.result.criterion == WINNER
    assert own_rates == rates
    # LearningRateMonitor notes the rate before anything is trained
    assert own_logged == logged
    assert all(map(torch.equal, own, weights))

    trainer, *_ = fit("half", seeded(kind, lr=0.1), search(), epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    callback = search()
    _, own, own_rates, own_logged = fit("rest", seeded(kind, lr=0.1), callback, ckpt_path=tmp_path / "half.ckpt")
    assert callback.result.criterion == WINNER
    assert own_rates == rates
    assert own_logged == [entry for entry in logged if entry[0] >= 12]
    assert all(map(torch.equal, own, weights))


def test_files_that_a_candidate_writes_go_with_the_search(tmp_path):
    seen = set()

    class Writes(classifier(pl)):
        def on_validation_epoch_end(self):
            for folder in (self.trainer.log_dir, self.logger.save_dir, self.logger.log_dir):
                os.makedirs(folder, exist_ok=True)
                seen.add(folder)

    outer = tmp_path / "outer"
    fit = inner_fit(pl, outer, seeded(Writes), logger=pl.loggers.CSVLogger(outer))
    seen.clear()
    nested(fit, CRITERIA[:1])
    assert len(seen) == 1
    assert not any(folder.startswith(str(tmp_path)) for folder in seen)


def test_settings_of_the_outer_trainer_are_taken_over(tmp_path):
    options = {
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 0.3,
        "limit_train_batches": 3,
        "precision": "bf16-mixed",
    }
    fit = inner_fit(pl, tmp_path, seeded(classifier(pl)), budget=Budget(steps=2), probed=True, **options)
    trainer = fit.trainer()
    assert {name: getattr(trainer, name) for name in options} == options
    assert fit.epoch_steps() == 2
    assert (trainer.max_steps, trainer.max_epochs) == (2, 1)


def test_the_datamodule_stays_with_the_outer_trainer(tmp_path):
    from helpers.data import split_datamodule

    datamodule = split_datamodule(pl)
    fit = inner_fit(pl, tmp_path, seeded(classifier(pl)), {"datamodule": datamodule})
    outer = datamodule.trainer
    nested(fit, CRITERIA[:1])
    assert datamodule.trainer is outer
    assert datamodule.calls == 1
    assert fit.module.trainer is outer
