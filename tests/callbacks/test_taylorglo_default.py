"""The default: ten presets; what they cost, and how a search goes on."""

import logging

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs, loader, loaders
from helpers.modules import classifier, quiet_trainer, seeded
from torch.utils.data import Subset, TensorDataset

from tglo_lightning import TaylorGLO
from tglo_lightning.search import Criterion, Finals, SearchResult, presets


def fit(tmp_path, data=None, epochs=2, **arguments):
    module = seeded(classifier(pl))
    search = TaylorGLO("criterion", "val/acc", **{"evaluator": "vectorized", "report": False} | arguments)
    trainer = quiet_trainer(pl, tmp_path, max_epochs=epochs, callbacks=[search])
    trainer.fit(module, **(data or loaders()))
    return search, trainer, module


def test_the_default_tries_presets_and_tells_the_cost(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="tglo_lightning"):
        search, trainer, _ = fit(tmp_path)
    result = search.result
    assert [candidate.criterion for candidate in result.history] == presets(3)
    assert all(not finalist.criterion.is_original for finalist in result.finalists)
    assert len(result.finalists) == 3
    assert len(result.original.fitness) in (4, 10)
    assert result.trainings <= 33
    assert "TaylorGLO: up to 33 trainings of 2 epochs each (prior: shared)." in caplog.messages
    assert trainer.current_epoch == 2


def test_unbalanced_classes_bring_losses_of_their_own(tmp_path):
    data = blobs(160)
    kept = [i for i, (_, label) in enumerate(data) if int(label) != 2 or i % 5 == 0]
    counts = torch.bincount(data.tensors[1][kept])
    search, *_ = fit(tmp_path, loaders() | {"train_dataloaders": loader(Subset(data, kept), shuffle=True)}, finals=2)
    specs = [candidate.criterion.losses[0] for candidate in search.result.history[-2:]]
    assert [spec.family for spec in specs] == ["logit_adjustment", "class_weights"]
    for spec in specs:
        assert spec.theta[1:] == pytest.approx((counts / counts.sum()).tolist())
    assert all(candidate.status == "ok" for candidate in search.result.history)


class Yes(classifier(pl)):
    """Whether a sample is of class 0."""

    def __init__(self, criterion):
        super().__init__(net=torch.nn.Sequential(torch.nn.Linear(8, 1), torch.nn.Flatten(0)), criterion=criterion)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/acc", ((self(x) > 0.5) == (y > 0.5)).float().mean())


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
@pytest.mark.parametrize(
    ("criterion", "family", "known"),
    [
        (
            torch.nn.BCEWithLogitsLoss,
            "binary_taylor",
            [(name, 1.0) for name in ("binary_smoothing", "binary_focal", "asymmetric")],
        ),
        (torch.nn.MSELoss, "barron", [("huber", rate) for rate in (1.0, 0.3, 3.0)]),
    ],
)
def test_the_presets_for_other_targets(tmp_path, evaluator, criterion, family, known):
    module = seeded(Yes, criterion=criterion())
    search = TaylorGLO(monitor="val/acc", evaluator=evaluator, report=False)
    data = {}
    for name, given in loaders().items():
        x, y = given.dataset.tensors
        data[name] = loader(TensorDataset(x, (y == 0).float()), shuffle=name == "train_dataloaders")
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search]).fit(module, **data)
    result = search.result
    assert (result.candidates, result.failed, result.settings["evaluator"]) == (10, 0, evaluator)
    criteria = [candidate.criterion for candidate in result.history]
    assert criteria[:4] == [Criterion.original(rate) for rate in (1.0, 0.3, 3.0, 0.1)]
    assert [(c.losses[0].family, c.step) for c in criteria[4:]] == [
        *((family, rate) for rate in (1.0, 0.3, 3.0)),
        *known,
    ]
    assert len({candidate.fitness for candidate in result.history}) > 1


def test_labels_that_the_batch_does_not_hold_are_not_counted(tmp_path):
    x, y = blobs(64).tensors

    class Shifted(classifier(pl)):
        def training_step(self, batch, batch_idx):
            return super().training_step([batch[0], batch[1] - 1], batch_idx)

    module = seeded(Shifted)
    search = TaylorGLO("criterion", "val/acc", finals=2, evaluator="trainer", report=False)
    data = loaders() | {"train_dataloaders": loader(TensorDataset(x, y + 1))}
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search]).fit(module, **data)
    assert [candidate.criterion for candidate in search.result.history] == presets(3)


@pytest.mark.parametrize("evaluator", ["auto", "trainer"])
def test_a_dry_run_says_what_a_search_would_cost_and_trains_nothing(tmp_path, caplog, evaluator):
    with caplog.at_level(logging.INFO, logger="tglo_lightning"):
        search, trainer, module = fit(tmp_path, generations=8, dry_run=True, evaluator=evaluator)
    (message,) = [m for m in caplog.messages if "trainings" in m]
    assert message.startswith("TaylorGLO: up to 110 trainings of 2 epochs each, about ")
    assert search.result is None
    assert trainer.global_step == 0
    assert not list(tmp_path.rglob("search.json*"))
    before = seeded(classifier(pl)).state_dict()
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if value.is_floating_point())


def test_a_dry_run_ends_a_fit_that_has_a_least_length(tmp_path):
    data = loaders()
    search = TaylorGLO("criterion", "val/acc", dry_run=True, evaluator="trainer")
    trainer = quiet_trainer(pl, tmp_path, max_epochs=2, min_epochs=1, min_steps=2, callbacks=[search])
    trainer.fit(seeded(classifier(pl)), **data)
    assert (search.result, trainer.global_step) == (None, 0)
    assert (trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps) == (1, 2)


def test_a_finished_search_goes_on_with_more_generations(tmp_path, caplog):
    small = {"population": 4, "finals": Finals(2, 1, 2), "journal": tmp_path / "search.jsonl"}
    first = fit(tmp_path, generations=1, **small)[0].result
    with caplog.at_level(logging.INFO, logger="tglo_lightning"):
        more = fit(tmp_path, generations=2, **small)[0].result
    assert any("goes on from" in message for message in caplog.messages)
    assert more.history[:4] == first.history
    assert more.candidates == 8
    at_once = fit(tmp_path, generations=2, **small | {"journal": tmp_path / "other.jsonl"})[0].result
    assert [f.fitness for f in more.finalists] == [f.fitness for f in at_once.finalists]
    assert SearchResult.load(tmp_path / "search.json").settings["generations"] == 2


def test_a_search_starts_at_an_earlier_result(tmp_path):
    first = fit(tmp_path, space="taylorglo", generations=1, population=4, finals=Finals(2, 1, 2))[0]
    again = fit(tmp_path, prior=first.directory / "search.json", finals=2)[0].result
    best = first.result.best.criterion.losses[0]
    thetas = [c.criterion.losses[0].theta for c in again.history[1:] if c.criterion.losses[0].family == "taylorglo"]
    assert len(set(thetas)) == 1
    ratio = torch.tensor(thetas[0])[3] / torch.tensor(best.theta)[3]
    assert torch.allclose(torch.tensor(thetas[0])[3:7], ratio * torch.tensor(best.theta)[3:7], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_the_best_epoch_counts_if_the_fit_keeps_it(tmp_path, evaluator):
    def search_with(*callbacks, **options):
        search = TaylorGLO("criterion", "val/acc", finals=2, evaluator=evaluator, report=False, **options)
        trainer = quiet_trainer(pl, tmp_path, max_epochs=4, callbacks=[search, *callbacks])
        trainer.fit(seeded(classifier(pl)), **loaders())
        return search.result

    stopping = pl.callbacks.EarlyStopping("val/acc", mode="max", patience=9)
    best = search_with(stopping)
    assert best.settings["budget"]["score"] == "best"
    last = search_with(pl.callbacks.EarlyStopping("train/loss", patience=9))
    assert last.settings["budget"]["score"] == "last"
    pairs = list(zip(best.history, last.history, strict=True))
    assert all(b.fitness >= l.fitness for b, l in pairs)  # noqa: E741
    assert any(b.fitness > l.fitness for b, l in pairs)  # noqa: E741
