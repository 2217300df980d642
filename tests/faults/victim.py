"""A fit with a search, to be killed. As a script: ``python victim.py DIRECTORY EVALUATOR STRATEGY``."""

import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tglo_lightning import TaylorGLO
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.losses.functional import wrapped
from tglo_lightning.search import Budget, Finals, Race, RandomSearch, presets, racing

# A race writes notes at every check, however quick it is
racing.SAVE_SECONDS = 0.0


class Victim(pl.LightningModule):
    """An MLP 8-16-3 that diverges or fails with some losses."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        # So that a search is not over before it is killed
        time.sleep(float(os.environ.get("VICTIM_SECONDS", "0")))
        loss = self.criterion(self.net(batch[0]), batch[1])
        if not wrapped(loss) and isinstance(self.criterion, TaylorGLOLoss):
            if self.criterion.theta[2] > 1.5:
                raise RuntimeError("not with this loss")
            if self.criterion.theta[3] > 1.0:
                return loss * torch.nan
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.log("val/acc", (logits.argmax(1) == batch[1]).float().mean())
        self.log("val/margin", nn.functional.softmax(logits, 1).gather(1, batch[1][:, None]).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Halving(RandomSearch):
    """Lets the better half train on, after 2 and after 4 steps."""

    def train(self, population):
        last = {}
        while population.trained < population.length:
            population.advance(2)
            last |= dict(zip(population.members, population.scores(), strict=True))
            order = sorted(population.members, key=lambda m: self.cost(last[m]))
            population.keep(sorted(order[: max(1, len(order) // 2)]))
        return [last[member] for member in sorted(last)]


STRATEGIES = {
    "cmaes": lambda: "cmaes",
    "random": lambda: "random",
    "halving": Halving,
    "race": lambda: Race(presets(3)[1:4], confirm=True),
}


def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 3
    x = torch.randn(3, 8, generator=generator)[y] + torch.randn(96, 8, generator=generator)
    return DataLoader(TensorDataset(x, y), 16, shuffle=True), DataLoader(TensorDataset(x[:48], y[:48]), 48)


def fit(directory, evaluator="trainer", strategy="cmaes", *, callbacks=(), max_epochs=1, ckpt_path=None):
    """The callback after the fit, and the Trainer. Candidates train for one epoch of 6 steps, in a race for four."""
    pl.seed_everything(0, verbose=False)
    if strategy == "race":
        max_epochs, budget = 4, None
    else:
        budget = Budget(steps=6)
    search = TaylorGLO(
        monitor="val/margin", generations=2, population=4, budget=budget, report=False,
        finals=Finals(finalists=2, seeds=1, confirm=3), evaluator=evaluator, strategy=STRATEGIES[strategy](),
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=max_epochs, accelerator="cpu", logger=False, enable_checkpointing=bool(callbacks),
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=directory,
        callbacks=[search, *callbacks],
    )  # fmt: skip
    trainer.fit(Victim(), *data(), ckpt_path=ckpt_path)
    return search, trainer


def outcome(search, trainer):
    """All that must be the same, bit for bit: the search's result, and the weights after the training."""
    values = search.result.to_dict()
    del values["seconds"]
    for candidate in values["history"]:
        del candidate["seconds"]
    weights = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    return json.dumps([values, weights])


def journals(directory):
    """The journals of the searches in a directory."""
    return sorted(Path(directory).glob("tglo/*/search.jsonl"))


def fork(work, log):
    """Run ``work()`` in a process of its own, what it prints appended to the file ``log``; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stderr = sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        # As in a script: no handlers but ours, and Ctrl-C not ignored, as it is in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        logging.root.handlers.clear()
        logging.getLogger("tglo_lightning").handlers[0].setStream(sys.stderr)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def work(directory, evaluator, strategy="cmaes"):
    """Fit, and leave the outcome in the directory."""
    Path(directory, "outcome.json").write_text(outcome(*fit(directory, evaluator, strategy)))


if __name__ == "__main__":
    work(*sys.argv[1:])
