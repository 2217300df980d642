"""A look at the network that the original loss makes."""

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs, loader
from helpers.modules import classifier, quiet_trainer, seeded
from torch.utils.data import TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation.diagnosis import diagnose
from tglo_lightning.search import Criterion, SearchResult
from tglo_lightning.search.summary import diagnosis

X, Y = blobs(96, seed=1).tensors
WRONG = torch.where(torch.arange(96) % 2 == 0, Y, (Y + 1) % 3)


class Network:
    """A population of one network."""

    def __init__(self, module):
        self.module = module

    def weights(self, member):
        return dict(self.module.state_dict())


@pytest.mark.parametrize("source", ["loaders", "datamodule", "module"])
def test_shares_and_confidence(tmp_path, source):
    module = seeded(classifier(pl))
    data = {"train_dataloaders": loader(TensorDataset(X, WRONG)), "val_dataloaders": loader(TensorDataset(X, Y))}
    if source == "datamodule":
        datamodule = pl.LightningDataModule()
        datamodule.train_dataloader, datamodule.val_dataloader = (lambda d=d: d for d in data.values())
        data = {"datamodule": datamodule}
    elif source == "module":
        module.train_dataloader, module.val_dataloader = (lambda d=d: d for d in data.values())
        data = {}
    found = {}

    class Look(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            from tglo_lightning.evaluation import InnerFit
            from tglo_lightning.module import LossSlots
            from tglo_lightning.search import Budget

            fit = InnerFit(trainer, pl_module, LossSlots("criterion"), "val/acc", Budget(epochs=1), "module")
            state = torch.get_rng_state()
            found.update(diagnose(fit, Network(pl_module), 0))
            assert torch.equal(torch.get_rng_state(), state)

    h = module.net(X).softmax(1)
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[Look()]).fit(module, **data)
    chosen = h.argmax(1)
    assert found["train_acc"] == pytest.approx((chosen == WRONG).float().mean().item())
    assert found["val_acc"] == pytest.approx((chosen == Y).float().mean().item())
    assert found["val_confidence"] == pytest.approx(h.max(1).values.mean().item(), rel=1e-5)
    ece = multiclass_calibration_error(h, Y, 3, n_bins=15)
    assert found["val_ece"] == pytest.approx(ece.item(), rel=1e-5)
    assert ece > 0.05


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_a_search_tells_it_and_remembers_it(tmp_path, evaluator, caplog):
    module = seeded(classifier(pl))
    options = {"evaluator": evaluator, "finals": 2, "report": False, "journal": tmp_path / "search.jsonl"}
    data = {"train_dataloaders": loader(TensorDataset(X, WRONG)), "val_dataloaders": loader(TensorDataset(X, Y))}
    with caplog.at_level("INFO", logger="tglo_lightning"):
        search = TaylorGLO(monitor="val/acc", **options)
        quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search]).fit(module, **data)
    assert set(search.result.diagnosis) == {"train_acc", "val_acc", "train_confidence", "val_confidence", "val_ece"}
    assert any(diagnosis(search.result) in message for message in caplog.messages)
    again = TaylorGLO(monitor="val/acc", **options)
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[again]).fit(seeded(classifier(pl)), **data)
    assert again.result.diagnosis == search.result.diagnosis == SearchResult.load(tmp_path / "search.json").diagnosis


def test_words():
    def words(train, val):
        found = {"train_acc": train, "val_acc": val, "train_confidence": 0.9, "val_confidence": 0.8, "val_ece": 0.12}
        own = {"criterion": Criterion.original().to_dict(), "name": "NLLLoss", "fitness": [], "found": None}
        own |= {"generation": None, "errors": []}
        values = {"kept": "original", "monitor": "a", "mode": "max", "best": None, "original": own, "finalists": []}
        rest = {"history": [], "p_value": None, "rejected": [], "seconds": 1.0, "settings": {}, "finished": True}
        return diagnosis(SearchResult.from_dict({**values, **rest, "curves": None, "diagnosis": found}))

    said = "at a mean confidence of 90 % and 80 % (expected calibration error on validation data 12 %): little to gain"
    assert said in words(0.97, 0.96)
    assert words(0.97, 0.5).startswith("With NLLLoss the network agrees with 97 % of the training labels and 50 % of")
    assert "it memorises" in words(0.97, 0.5)
    assert "it does not memorise in so short a training" in words(0.6, 0.58)
