"""Set-ups in which a search could go wrong without a word: it works, or says why not."""

import dataclasses
import logging
import os
import threading
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from helpers.data import blobs, loader, loaders
from helpers.modules import TINY, classifier, quiet_trainer, seeded
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation.limits import brief
from tglo_lightning.search import Budget


class Kept(TaylorGLO):
    """Searches, then keeps the original."""

    def _search(self, trainer, pl_module):
        return dataclasses.replace(super()._search(trainer, pl_module), kept="original")


def searched(**kwargs):
    return Kept(**(TINY | {"monitor": "val/acc", "evaluator": "trainer", "report": False} | kwargs))


class Epochs(Sampler):
    """Counts its epochs."""

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 96

    def __iter__(self):
        self.epoch += 1
        return iter(torch.randperm(96, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class Stream(IterableDataset):
    """Goes on where it stopped."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        while True:
            self.position += 1
            yield blobs(seed=1)[self.position % 96]


class Balanced:
    """A batch sampler without a base class."""

    def __init__(self):
        self.generator = np.random.RandomState(0)

    def __len__(self):
        return 6

    def __iter__(self):
        return iter([self.generator.choice(96, 16).tolist() for _ in range(6)])


DATA = {
    "sampler": lambda: loader(blobs(seed=1), sampler=Epochs()),
    "stream": lambda: DataLoader(Stream(), batch_size=16),
    "batch-sampler": lambda: DataLoader(blobs(seed=1), batch_sampler=Balanced()),
}


@pytest.mark.parametrize("kept", ["argument", "module"])
@pytest.mark.parametrize("name", DATA)
def test_data_with_a_position_are_where_they_were(tmp_path, name, kept):
    class Holder(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.data = DATA[name]()

        def train_dataloader(self):
            return self.data

        def val_dataloader(self):
            return loader(blobs(48, seed=2))

    ends = []
    for search in (None, searched(generations=1)):
        module = seeded(Holder if kept == "module" else classifier(pl))
        trainer = quiet_trainer(pl, tmp_path, max_epochs=1, limit_train_batches=3, callbacks=[search] if search else [])
        data = loaders() | {"train_dataloaders": DATA[name]()}
        trainer.fit(module, **({} if kept == "module" else data))
        ends.append(next(module.parameters()))
    assert torch.equal(*ends)


class Unknown(Dataset):
    """Draws from where nobody finds it."""

    values = iter(np.random.default_rng(0).normal(size=(10**4, 8)).astype("float32"))

    def __len__(self):
        return 96

    def __getitem__(self, index):
        return next(Unknown.values), index % 3


def test_data_that_cannot_be_repeated_are_named(tmp_path):
    class Sensitive(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            self.log("val/acc", self(batch[0]).sum())

    data = loaders() | {"train_dataloaders": DataLoader(Unknown(), batch_size=16)}
    with pytest.warns(UserWarning, match=r"came out differently .* the data gave other batches. A sampler, dataset or"):
        quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[searched()]).fit(Sensitive(), **data)


def test_persistent_workers_do_not_outlive_a_candidate(tmp_path):
    class Persistent(classifier(pl)):
        def train_dataloader(self):
            return loader(blobs(seed=1), num_workers=1, persistent_workers=True)

        def val_dataloader(self):
            return loader(blobs(48, seed=2))

    class Witness(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(trainer.train_dataloader.persistent_workers)

    seen = []
    search = searched(population=2, budget=Budget(steps=1, callbacks=[Witness()]))
    quiet_trainer(pl, tmp_path, max_epochs=1, limit_train_batches=1, callbacks=[search, Witness()]).fit(Persistent())
    assert seen.pop() is True
    assert not any(seen)


def test_a_second_fit(tmp_path, caplog):
    def fit():
        trainer = quiet_trainer(pl, tmp_path, callbacks=[search], max_epochs=epochs)
        with caplog.at_level(logging.INFO, "tglo_lightning"):
            caplog.clear()
            trainer.fit(module, **loaders())

    search, module, epochs = searched(), classifier(pl)(), 1
    fit()
    first = search.result
    epochs = 2
    fit()
    assert search.result is first
    assert "this module was searched for before" in caplog.text
    module = classifier(pl)()
    fit()
    assert search.result is not first
    assert "another module than in the fit before, so there is a new search" in caplog.text


@pytest.mark.parametrize("where", ["trainer", "logger"])
def test_files_of_candidates_go_to_a_directory_of_their_own(tmp_path, where):
    class Writing(classifier(pl)):
        def on_validation_epoch_end(self):
            assert not hasattr(self.logger, "log_image")
            assert hasattr(self.logger, "log_graph")
            folder = getattr(self, where).log_dir
            os.makedirs(folder, exist_ok=True)
            folders.append(os.fspath(folder))

    folders = []
    logger = CSVLogger(tmp_path)
    quiet_trainer(pl, tmp_path, max_epochs=1, logger=logger, callbacks=[searched()]).fit(Writing(), **loaders())
    outer = [folder for folder in folders if folder == logger.log_dir]
    assert 0 < len(outer) <= 2
    assert not any(folder.startswith(str(tmp_path)) for folder in folders if folder not in outer)


def test_what_follows_the_loss_is_named(tmp_path):
    class WithLoss(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            x, y = batch
            self.log("val_loss", self.criterion(self(x), y))
            self.log("val_ce", F.cross_entropy(self(x), y))

        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stops = [EarlyStopping("val_loss"), EarlyStopping("val_ce")]
        quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[searched(), *stops]).fit(WithLoss(), **loaders())
    told = [str(w.message) for w in caught if "computed from the loss that the search may replace" in str(w.message)]
    assert [line.split(",")[0] for line in told] == [
        "EarlyStopping watches 'val_loss'",
        "ReduceLROnPlateau watches 'val_loss'",
    ]


def test_a_search_in_another_thread(tmp_path):
    class Threaded(classifier(pl)):
        def on_train_batch_start(self, batch, batch_idx):
            if not errors and batch_idx == 0:
                errors.append(None)
                thread = threading.Thread(target=other)
                thread.start()
                thread.join()

    def other():
        try:
            quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[searched()]).fit(classifier(pl)(), **loaders())
        except RuntimeError as error:
            errors.append(str(error))

    errors = []
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[searched()]).fit(Threaded(), **loaders())
    assert "Another thread of this process is searching for a loss" in errors[1]


def test_no_bug_reports_of_other_libraries():
    error = NotImplementedError("Could not run 'x'. Please file an issue with PyTorch at github.com.\nmore")
    assert brief(error) == "NotImplementedError: Could not run 'x'."
    assert brief(ValueError("the file holds 3 values")) == "ValueError: the file holds 3 values"
