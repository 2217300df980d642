"""What a search shows: metrics in loggers, a progress bar, a verdict."""

import csv
import json
import logging
import subprocess
import sys
from importlib.util import find_spec

import pytest
import pytorch_lightning as pl
from helpers.data import loaders
from helpers.modules import TINY, classifier, quiet_trainer, seeded
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from tglo_lightning import TaylorGLO

SETTINGS = TINY | {"generations": 3, "population": 3}
EXPECTED = ["fitness_best", "fitness_mean", "fitness_worst", "fitness_best_so_far", "sigma", "failed", "rejected"]


def fit(tmp_path, api=pl, **kwargs):
    search = TaylorGLO(evaluator="trainer", **SETTINGS)
    trainer = quiet_trainer(api, tmp_path, callbacks=[search], **kwargs)
    trainer.fit(seeded(classifier(api)), **loaders())
    return search


def test_csv(tmp_path, caplog, capsys):
    """What is logged, and what is said without a progress bar."""
    with caplog.at_level(logging.INFO):
        search = fit(tmp_path, logger=CSVLogger(tmp_path, name="logs", version=0), enable_progress_bar=False)
    with open(tmp_path / "logs/version_0/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    generations = [row for row in rows if row["search/fitness_best"]]
    assert [int(float(row["search/generation"])) for row in generations] == [1, 2, 3]
    for row, generation in zip(generations, range(3), strict=True):
        fitness = [c.fitness for c in search.result.history if c.generation == generation]
        assert float(row["search/fitness_best"]) == max(fitness)
    (final,) = [row for row in rows if row["search/original_mean"]]
    assert float(final["search/original_mean"]) == pytest.approx(search.result.original.mean)
    # the outer training's own metrics are there too, one row a step
    assert len([row for row in rows if row["train/loss"]]) == 12
    assert f"{search.result.original.mean:.4g}" in caplog.text
    assert "11 trainings, 0 failed" in caplog.text
    assert ("TaylorGLO kept the original loss" in caplog.text) == (search.result.kept == "original")
    out = capsys.readouterr()
    assert "Metalearning" not in out.out + out.err


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard not installed")
def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(tmp_path, logger=TensorBoardLogger(tmp_path, name="logs", version=0))
    events = EventAccumulator(str(tmp_path / "logs/version_0")).Reload()
    assert [event.step for event in events.Scalars("search/fitness_best")] == [1, 2, 3]


def records(path):
    """The records of an offline run, as wandb prints them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in shown.stdout.splitlines()]


@pytest.mark.parametrize("name", ["pytorch_lightning", "lightning"])
def test_wandb_offline(tmp_path, monkeypatch, name):
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb = pytest.importorskip("wandb")
    if find_spec(name) is None:
        pytest.skip(f"{name} not installed")
    if name == "lightning":
        import lightning.pytorch as api
        from lightning.pytorch.loggers import WandbLogger as Logger
    else:
        api, Logger = pl, WandbLogger
    try:
        search = fit(tmp_path, api, logger=Logger(save_dir=tmp_path, offline=True, project="tests"))
    finally:
        wandb.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = records(path)
    rows = [record["history"]["item"] for record in found if record["type"] == "history"]
    metrics = [record["metric"] for record in found if record["type"] == "metric"]
    axes = {metric["glob_name"]: metric["step_metric"] for metric in metrics if metric.get("glob_name")}
    assert axes["search/*"] == "search/generation"
    generations = [row for row in rows if "search/fitness_best" in row]
    assert [row["search/generation"] for row in generations] == [1, 2, 3]
    for row in generations:
        assert {f"search/{metric}" for metric in EXPECTED} <= row.keys()
    assert any("train/loss" in row for row in rows)
    assert [r["search/original_mean"] for r in rows if "search/original_mean" in r] == [search.result.original.mean]


@pytest.mark.parametrize("bar", [None, pl.callbacks.RichProgressBar, pl.callbacks.TQDMProgressBar])
def test_a_bar_beside_lightnings(tmp_path, capsys, bar):
    search = TaylorGLO(evaluator="trainer", **TINY)
    callbacks = [search] if bar is None else [search, bar()]
    trainer = quiet_trainer(pl, tmp_path, callbacks=callbacks, enable_progress_bar=True)
    trainer.fit(seeded(classifier(pl)), **loaders())
    shown = capsys.readouterr().out
    # a generation of 4, then the winner and the original
    assert "6/6" in shown
    assert "best val/acc" in shown
    assert "Confirmation" in shown


def test_no_bar_of_a_disabled_one(tmp_path, capsys):
    bar = pl.callbacks.TQDMProgressBar()
    bar.disable()
    trainer = quiet_trainer(
        pl, tmp_path, callbacks=[TaylorGLO(evaluator="trainer", **TINY), bar], enable_progress_bar=True
    )
    trainer.fit(seeded(classifier(pl)), **loaders())
    assert "6/6" not in capsys.readouterr().out
