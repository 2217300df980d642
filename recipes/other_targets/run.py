"""Losses for regression and for binary targets, searched where training targets are partly wrong.

    python recipes/other_targets/run.py [--output result.json]

Two data sets of scikit-learn: disease progression (diabetes, 442 patients), 15 % of the training targets replaced by
outliers, and tumours (breast cancer, 569 patients), 30 % of the training labels flipped. Validation and test
targets are right.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tglo_lightning import TaylorGLO

SEEDS = range(5)
# The same number of trainings each: the learning rate of the usual loss, known losses, and the default
SEARCHES: dict[str, dict[str, Any]] = {
    "rate": {"space": "original"},
    "known": {"space": "original", "strategy": "portfolio"},
    "default": {},
}


def data(task: str, seed: int) -> list[DataLoader[Any]]:
    """Loaders of training, validation and test, split and spoiled by ``seed``; inputs and numbers are standardised."""
    x, y = (load_diabetes if task == "regression" else load_breast_cancer)(return_X_y=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    x, y = torch.tensor(x, dtype=torch.float32)[order], torch.tensor(y, dtype=torch.float32)[order]
    train, val = int(0.5 * len(x)), int(0.75 * len(x))
    x = (x - x[:train].mean(0)) / x[:train].std(0)
    if task == "regression":
        y = (y - y[:train].mean()) / y[:train].std()
        wrong = torch.rand(train, generator=generator) < 0.15
        y[:train][wrong] = 10 * torch.randn(int(wrong.sum()), generator=generator)
    else:
        wrong = torch.rand(train, generator=generator) < 0.3
        y[:train][wrong] = 1 - y[:train][wrong]
    parts = [TensorDataset(x[a:b], y[a:b]) for a, b in ((0, train), (train, val), (val, len(x)))]
    return [DataLoader(part, batch_size=32, shuffle=part is parts[0]) for part in parts]


class Net(pl.LightningModule):
    """An MLP whose loss is called inline, as in most modules."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = task
        inputs = 10 if task == "regression" else 30
        self.net = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The usual loss."""
        x, y = batch
        output = self.net(x).squeeze(1)
        return F.mse_loss(output, y) if self.task == "regression" else F.binary_cross_entropy_with_logits(output, y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Mean absolute error, or error rate."""
        x, y = batch
        output = self.net(x).squeeze(1)
        error = (output - y).abs() if self.task == "regression" else ((output > 0) != (y > 0.5)).float()
        self.log("val/error", error.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.003)


def train(task: str, seed: int, search: TaylorGLO | None) -> float:
    """Train a network; return the error on the test data."""
    pl.seed_everything(seed, verbose=False)
    training, validation, test = data(task, seed)
    trainer = pl.Trainer(
        max_epochs=30,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[search] if search else [],
        default_root_dir=tempfile.mkdtemp(),
    )
    module = Net(task)
    trainer.fit(module, training, validation)
    return float(trainer.validate(module, test, verbose=False)[0]["val/error"])


def main() -> None:
    """Compare the usual loss with searched ones, seed by seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("result.json"))
    output = parser.parse_args().output
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    result: dict[str, Any] = {}
    started = time.perf_counter()
    for task in ("regression", "binary"):
        result[task] = {"usual": [train(task, seed, None) for seed in SEEDS]}
        for name, options in SEARCHES.items():
            errors, kept = [], []
            for seed in SEEDS:
                search = TaylorGLO(
                    monitor="val/error",
                    mode="min",
                    generations=5,
                    population=12,
                    init="reset",
                    evaluator="vectorized",
                    report=False,
                    **options,
                )
                errors.append(train(task, seed, search))
                assert search.result is not None
                kept.append(search.result.criterion.formula or "original")
            result[task][name] = {"errors": errors, "kept": kept}
    result["seconds"] = round(time.perf_counter() - started)
    output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
