"""What the callback refuses, before any training, and what it says."""

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from helpers.data import loader, loaders
from helpers.modules import TINY, accuracy, classifier, mlp, quiet_trainer, seeded
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.search import Budget, TaylorSpace


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("loss", 3, TypeError),
        ("loss", "not a path", ValueError),
        ("loss", "F.relu", ValueError),
        ("loss", "F.cross_entropy#", ValueError),
        ("monitor", None, TypeError),
        ("monitor", "", TypeError),
        ("mode", "maximum", ValueError),
        ("mode", None, ValueError),
        ("generations", 0, ValueError),
        ("population", 1, ValueError),
        ("space", "polynomial", ValueError),
        ("space", 5, TypeError),
        ("strategy", "gradient", ValueError),
        ("strategy", 5, TypeError),
        ("budget", 0, ValueError),
        ("budget", 1.5, TypeError),
        ("finals", 0, ValueError),
        ("finals", "3", TypeError),
        ("init", "random", ValueError),
        ("init", None, ValueError),
        ("seed", -1, ValueError),
        ("evaluator", "fast", ValueError),
        ("evaluator", 5, TypeError),
    ],
)
def test_wrong_arguments_are_named(argument, value, error):
    with pytest.raises(error, match=f"`{argument}`"):
        TaylorGLO(**{argument: value})


@pytest.mark.parametrize(("monitor", "mode"), [("val_loss", "max"), ("val/NLL", "max"), ("val/acc", "min")])
def test_a_mode_against_the_name_of_the_metric(monitor, mode):
    with pytest.warns(UserWarning, match=f"`monitor='{monitor}'` sounds like .* this search has mode='{mode}'"):
        TaylorGLO(monitor=monitor, mode=mode)


def test_a_mode_that_fits_or_may_fit(recwarn):
    for monitor, mode in (("val_loss", "min"), ("val/acc", "max"), ("glossiness", "max"), ("score", "min")):
        TaylorGLO(monitor=monitor, mode=mode)
    assert not recwarn.list


def test_callbacks_that_are_none():
    with pytest.raises(TypeError, match=r"`budget\.callbacks` must be Lightning callbacks"):
        TaylorGLO(budget=Budget(epochs=1, callbacks=[5]))


class Trap(classifier(pl)):
    """Fails the test if it is trained further than the probe's one batch."""

    def on_train_batch_start(self, batch, batch_idx):
        assert batch_idx == 0, "training went on"


def refused(tmp_path, module, match, error=ValueError, data=None, trainer=None, **kwargs):
    search = TaylorGLO(**(TINY | {"evaluator": "trainer"} | kwargs))
    with pytest.raises(error, match=match):
        quiet_trainer(pl, tmp_path, callbacks=[search], **(trainer or {})).fit(module, **(data or loaders()))
    assert search.result is None


def test_missing_loss(tmp_path):
    refused(
        tmp_path,
        Trap(),
        "`loss='head.loss'`: Trap has no attribute 'head'. Losses found: 'criterion'",
        loss="head.loss",
    )


class Inline(Trap):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)


def test_inline_loss_beside_an_attribute(tmp_path):
    refused(tmp_path, Inline(), "training_step of Inline does not call it. Leave out `loss=`", loss="criterion")


@pytest.mark.parametrize("names", [None, "criterion"])
def test_other_losses(tmp_path, names):
    refused(tmp_path, Trap(criterion=nn.MultiMarginLoss()), "TaylorGLO replaces CrossEntropyLoss", loss=names)


def test_targets_that_are_no_probabilities(tmp_path):
    class Soft(Trap):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.criterion(self(x), 0.5 * F.one_hot(y, 3) + 0.25)

    refused(tmp_path, Soft(), "class probabilities of a target must add up to 1")


def test_a_journal_that_is_a_directory(tmp_path):
    with pytest.raises(ValueError, match=r"`journal` must be a file, .* is a directory: .*search\.jsonl"):
        TaylorGLO(journal=tmp_path)


def test_unusual_call(tmp_path):
    class Unusual(Trap):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.criterion(self(x), y, 0.5)

    refused(
        tmp_path,
        Unusual(criterion=lambda logits, y, scale: scale * F.cross_entropy(logits, y)),
        r"is not called as self.criterion\(output, target\)",
    )


def test_unknown_monitor_names_the_known(tmp_path):
    refused(
        tmp_path, Trap(), r"`monitor='val/f1'` is not logged by Trap; logged: train/loss, val/acc\.", monitor="val/f1"
    )


class Two(Trap):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return super().training_step(batch, batch_idx) + F.cross_entropy(self(x), y)


class Tupled(Trap):
    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1], 1.0)


@pytest.mark.parametrize(
    ("module", "loss", "problem"),
    [
        (Trap, "head.loss", "has no attribute 'head'"),
        (Two, None, "calls 2 losses"),
        (lambda: Trap(criterion=nn.MultiMarginLoss()), None, "TaylorGLO replaces CrossEntropyLoss"),
        (lambda: Tupled(criterion=lambda x, y, scale: F.cross_entropy(x, y)), "criterion", "is not called as"),
    ],
)
def test_loss_and_monitor_are_told_together(tmp_path, module, loss, problem):
    refused(tmp_path, module(), f"{problem}(?s:.*)`monitor='f1'` is not logged by T", loss=loss, monitor="f1")


def test_no_validation_data(tmp_path):
    refused(tmp_path, Trap(), "There is no validation: it needs", data={"train_dataloaders": loader()})


@pytest.mark.parametrize("losses", [{"ce": nn.CrossEntropyLoss()}, [nn.CrossEntropyLoss()]])
def test_losses_in_plain_containers(tmp_path, losses):
    module = Trap()
    module.losses = losses
    where = "ce" if isinstance(losses, dict) else "0"
    refused(tmp_path, module, f"'{where}' is in a plain .*Keep losses in a torch.nn.Module", loss=f"losses.{where}")


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss"])
def test_a_monitor_that_depends_on_the_loss(tmp_path, monitor):
    class WithLoss(Trap):
        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.log("val/loss", self.criterion(self(x), y))

    refused(tmp_path, WithLoss(), "is computed from the loss that is to be replaced", monitor=monitor, mode="min")


def test_a_monitor_that_is_a_loss_but_not_the_modules(tmp_path):
    class WithLoss(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.log("val/loss", F.cross_entropy(self(x), y))

    search = TaylorGLO(monitor="val/loss", mode="min", evaluator="trainer", **TINY)
    quiet_trainer(pl, tmp_path, callbacks=[search]).fit(WithLoss(), **loaders())
    assert search.result.candidates == 4


def test_a_step_that_fails_is_shown_with_its_cause(tmp_path):
    class NeedsCheckpoints(Trap):
        def on_train_start(self):
            self.best = self.trainer.checkpoint_callback.best_model_path

    refused(
        tmp_path,
        NeedsCheckpoints(),
        "copy of NeedsCheckpoints on one batch before .* failed with AttributeError.*best_model_path",
        error=RuntimeError,
        trainer={"enable_checkpointing": True},
    )


def test_a_module_that_cannot_be_copied(tmp_path):
    import threading

    module = Trap()
    module.lock = threading.Lock()
    refused(tmp_path, module, "cannot pickle(?s:.*)pass `init=` a function that builds", error=RuntimeError)


def test_orphan_parameter(tmp_path):
    module = Trap()
    module.scale = nn.Parameter(torch.ones(1))
    refused(tmp_path, module, "init='reset' cannot re-initialise scale", init="reset")


def test_init_that_returns_the_same_module_twice(tmp_path):
    module = Trap()
    other = Trap()
    refused(tmp_path, module, "`init` must build a new module", error=RuntimeError, init=lambda: module)
    refused(tmp_path, module, "`init` must build a new module", error=RuntimeError, init=lambda: other)


def test_init_that_builds_another_kind_of_module(tmp_path):
    refused(tmp_path, Trap(), "`init` must build a LightningModule, got Sequential", error=RuntimeError, init=mlp)


def test_impossible_constraint(tmp_path):
    refused(tmp_path, classifier(pl)(), "`constraint` rejected", space=TaylorSpace(constraint=lambda theta: False))


def test_no_hook_is_left_after_an_error(tmp_path):
    module = seeded(classifier(pl))
    search = TaylorGLO(monitor="no", evaluator="trainer", **TINY)
    trainer = quiet_trainer(pl, tmp_path, callbacks=[search], max_epochs=1)
    for _ in range(2):
        with pytest.raises(ValueError, match="is not logged"):
            trainer.fit(module, **loaders())
        assert len(module._load_state_dict_pre_hooks) == 1
    search.monitor = "val/acc"
    trainer.fit(module, **loaders())
    assert len(module._load_state_dict_pre_hooks) == 0
    assert accuracy(module(torch.randn(2, 8)), torch.tensor([0, 1])) >= 0
