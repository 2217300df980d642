"""Losses of auxiliary classifiers, metalearned together."""

import pytest
import torch
from helpers.data import CLASSES, FEATURES, loaders
from helpers.modules import classifier
from torch import nn

from tglo_lightning import TaylorGLO, TaylorGLOLoss, load_from_checkpoint
from tglo_lightning.module.slot import LossSlots

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
    return TaylorGLO(PATHS, generations=2, population=4, candidate_epochs=1, finalists=2, repeats=2, **kwargs)


def fit(api, tmp_path, callback):
    torch.manual_seed(0)
    module = module_class(api)()
    trainer = api.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, **loaders())
    return trainer, module


@pytest.mark.parametrize("parameterization", ["full", "minimal", "smoothed_ce"])
def test_one_vector_holds_all_losses(api, tmp_path, parameterization):
    fitness = {}
    for evaluator in ("trainer", "vectorized"):
        callback = search(evaluator=evaluator, parameterization=parameterization)
        _, module = fit(api, tmp_path, callback)
        size = 2 if parameterization == "smoothed_ce" else 8
        assert {len(candidate.theta) for candidate in callback.result.history} == {2 * size}
        assert callback.result.best.formula.count(";") == 1
        fitness[evaluator] = [candidate.fitness for candidate in callback.result.history]
        if callback.result.kept == "metalearned":
            found = callback.result.best.theta
            assert module.criterion.theta.tolist() == found[:size]
            assert module.aux_criteria[0].theta.tolist() == found[size:]
            assert torch.equal(module.aux_criteria[0].weight, torch.ones(CLASSES))
    assert fitness["trainer"] == pytest.approx(fitness["vectorized"])


def test_checkpoint_rebuilds_all_losses(api, tmp_path):
    callback = search(evaluator="trainer")
    trainer, module = fit(api, tmp_path, callback)
    callback.result.kept = "metalearned"
    callback._install(module)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = load_from_checkpoint(module_class(api), tmp_path / "x.ckpt")
    for loss in (loaded.criterion, loaded.aux_criteria[0]):
        assert isinstance(loss, TaylorGLOLoss)
    assert loaded.aux_criteria[0].theta.tolist() == callback.result.best.theta[8:]


def test_constraint_holds_for_each(api, tmp_path):
    callback = search(
        evaluator="trainer", parameterization="full", constraint=lambda theta: len(theta) == 8 and theta[0] > 0
    )
    fit(api, tmp_path, callback)
    assert all(c.theta[0] > 0 and c.theta[8] > 0 for c in callback.result.history)
    assert callback.result.infeasible > 0


@pytest.mark.parametrize("paths", [[], ["criterion", "criterion"], 3, [3]])
def test_paths_are_checked(paths):
    with pytest.raises((TypeError, ValueError), match="`loss`"):
        LossSlots(paths)
