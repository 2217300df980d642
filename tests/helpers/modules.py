"""Tiny LightningModules, under both names of Lightning."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from helpers.data import CLASSES, FEATURES
from tglo_lightning.search import Budget, Finals

NAMES = ("pytorch_lightning", "lightning.pytorch")
NAMESPACES = [
    pytest.param(
        name, id=name, marks=pytest.mark.skipif(find_spec(name.split(".")[0]) is None, reason=f"{name} not installed")
    )
    for name in NAMES
]


@pytest.fixture
def api() -> Any:
    """``pytorch_lightning``. Import the fixture into a test module to use it there."""
    return import_module(NAMES[0])


@pytest.fixture(params=NAMESPACES)
def either_api(request: pytest.FixtureRequest) -> Any:
    """``pytorch_lightning``, then ``lightning.pytorch``: for smoke tests, all else is tested with the first."""
    return import_module(request.param)


def mlp(dropout: float = 0.0) -> nn.Module:
    """An MLP 8-16-3."""
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES))


def cnn() -> nn.Module:
    """A convolution with BatchNorm on images ``(1, 8, 8)``."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES)
    )


@cache
def classifier(api: Any) -> type:
    """A class as users write it: a network, a loss under ``criterion``, accuracy logged as ``val/acc``."""

    class Classifier(api.LightningModule):
        def __init__(self, net: nn.Module | None = None, criterion: Any = None, lr: float = 0.1) -> None:
            super().__init__()
            self.net = mlp() if net is None else net
            self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
            self.lr = lr

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            x, y = batch
            loss = self.criterion(self(x), y)
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            x, y = batch
            self.log("val/acc", accuracy(self(x), y))

        def test_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            self.log("test/acc", accuracy(self(x), y))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    return Classifier


@cache
def manual(api: Any) -> type:
    """The same with optimizers that it steps by hand."""

    class Manual(classifier(api)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = super().training_step(batch, batch_idx)
            optimizers = self.optimizers()
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            for optimizer in optimizers:
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in optimizers:
                optimizer.step()

    return Manual


def accuracy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of right answers, for class indices and probabilities."""
    labels = target.argmax(1) if target.is_floating_point() else target
    return (logits.argmax(1) == labels).float().mean()


def seeded(build: Any, *args: Any, seed: int = 0, **kwargs: Any) -> Any:
    """``build(*args, **kwargs)`` with torch's global generator seeded first."""
    torch.manual_seed(seed)
    return build(*args, **kwargs)


def quiet_trainer(api: Any, tmp_path: Any, **kwargs: Any) -> Any:
    """A Trainer on the CPU that shows nothing and, unless asked, writes nothing."""
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        "log_every_n_steps": 1,
    }
    return api.Trainer(**(defaults | kwargs))


# A search of 6 trainings of two steps, without a report, which would take as long
TINY: dict[str, Any] = {
    "space": "taylorglo",
    "generations": 1,
    "population": 4,
    "budget": Budget(steps=2),
    "finals": Finals(finalists=1, seeds=0, confirm=1),
    "report": False,
}


def theta_of(entry: Any) -> list[float]:
    """The parameters of the first loss of a candidate or a finalist."""
    return list(entry.criterion.losses[0].theta)
