"""Losses of auxiliary classifiers, metalearned together."""

import pytest
import torch
from helpers.data import CLASSES, FEATURES, loaders
from helpers.modules import classifier
from torch import nn

from tglo_lightning import TaylorGLO, TaylorGLOLoss, load_from_checkpoint
from tglo_lightning.module import LossSlots
from tglo_lightning.search import Finals, TaylorSpace

PATHS = ["criterion", "aux_criteria.0"]


def module_class(api):
    class Auxiliary(classifier(api)):
        def __init__(self):
            super().__init__()
            self.early = nn.Linear(FEATURES, CLASSES)
            self.aux_criteria = nn.ModuleList([nn.CrossEntropyLoss(weight=torch.ones(CLASSES))])

        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.criterion(self(x), y) + 0.3 * self.aux_criteria[0](self.early(x), y)

    return Auxiliary


def search(**kwargs):
    return TaylorGLO(PATHS, generations=2, population=4, budget=1, finals=Finals(2, 1, 2), report=False, **kwargs)


def fit(api, tmp_path, callback):
    torch.manual_seed(0)
    module = module_class(api)()
    trainer = api.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, **loaders())
    return trainer, module


@pytest.mark.parametrize(
    "space", [TaylorSpace(), TaylorSpace(coordinates="full"), "smoothing"], ids=["minimal", "full", "smoothing"]
)
def test_one_criterion_holds_all_losses(api, tmp_path, space):
    fitness = {}
    for evaluator in ("trainer", "vectorized"):
        callback = search(evaluator=evaluator, space=space)
        _, module = fit(api, tmp_path, callback)
        assert {len(candidate.criterion.losses) for candidate in callback.result.history} == {2}
        assert callback.result.best.formula.count(";") == 1
        fitness[evaluator] = [candidate.fitness for candidate in callback.result.history]
        if callback.result.kept == "metalearned":
            first, second = callback.result.best.criterion.losses
            assert tuple(module.criterion.theta.tolist()) == first.theta
            assert tuple(module.aux_criteria[0].theta.tolist()) == second.theta
            assert torch.equal(module.aux_criteria[0].weight, torch.ones(CLASSES))
    assert fitness["trainer"] == pytest.approx(fitness["vectorized"])


def test_checkpoint_rebuilds_all_losses(api, tmp_path):
    callback = search(evaluator="trainer")
    trainer, module = fit(api, tmp_path, callback)
    callback.slots.install(module, callback.result.best.criterion)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = load_from_checkpoint(module_class(api), tmp_path / "x.ckpt")
    for loss in (loaded.criterion, loaded.aux_criteria[0]):
        assert isinstance(loss, TaylorGLOLoss)
    assert tuple(loaded.aux_criteria[0].theta.tolist()) == callback.result.best.criterion.losses[1].theta


def test_constraint_holds_for_each(api, tmp_path):
    callback = search(evaluator="trainer", space=TaylorSpace(3, "full", lambda theta: len(theta) == 8 and theta[0] > 0))
    fit(api, tmp_path, callback)
    assert all(loss.theta[0] > 0 for c in callback.result.history for loss in c.criterion.losses)
    assert sum(callback.result.rejected) > 0


@pytest.mark.parametrize("paths", [[], ["criterion", "criterion"], 3, [3]])
def test_paths_are_checked(paths):
    with pytest.raises((TypeError, ValueError), match="`loss`"):
        LossSlots(paths)
