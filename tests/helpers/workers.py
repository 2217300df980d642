"""Modules that can be pickled, and a look at the worker processes."""

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from helpers.fits import CRITERIA
from helpers.modules import accuracy, mlp
from tglo_lightning.search import Criterion, Evaluation


class Top(pl.LightningModule):
    """A classifier at the top level, where pickle finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.criterion = mlp(), torch.nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.criterion(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/acc", accuracy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class Slow(Top):
    """Time enough to be killed: three steps take half a second."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        time.sleep(0.17)
        return super().training_step(batch, batch_idx)


def at(index: int, act: Callable[[], None]) -> type:
    """A module whose training with criterion ``index`` does something at each step."""

    class Acts(Top):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            theta = torch.tensor(CRITERIA[index].losses[0].theta)
            if hasattr(self.criterion, "theta") and torch.allclose(self.criterion.theta.float(), theta):
                act()
            return super().training_step(batch, batch_idx)

    return Acts


def evaluate(evaluator: Any, criteria: Sequence[Criterion], seed: int = 1) -> list[Evaluation]:
    """Evaluations of whole trainings by an evaluator that is set up, and stays so."""
    population = evaluator.start(criteria, seed)
    population.advance(population.length)
    evaluations = list(population.scores())
    population.close()
    return evaluations


def workers() -> list[int]:
    """Ids of the living worker processes of this process."""
    return [child.pid for child in multiprocessing.active_children() if child.name.startswith("tglo-worker")]


def kill(pid: int) -> None:
    """End a process as a lack of memory does."""
    os.kill(pid, signal.SIGKILL)


def processes() -> list[tuple[int, ...]]:
    """Id, parent and group of each living process."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listing.stdout.splitlines()]
    return [tuple(map(int, numbers)) for *numbers, state in rows if not state.startswith("Z")]
