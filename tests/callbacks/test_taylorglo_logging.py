"""What a search shows: metrics in loggers, a progress bar, a verdict."""

import csv
import json
import logging
import subprocess
import sys
from importlib.util import find_spec

import pytest
import pytorch_lightning as pl
import rich
from helpers.data import loaders
from helpers.modules import TINY, classifier, quiet_trainer, seeded
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import nn

from tglo_lightning import AttractionMonitor, TaylorGLO

SETTINGS = TINY | {"generations": 3, "population": 3}
EXPECTED = ["fitness_best", "fitness_mean", "fitness_worst", "fitness_best_so_far", "sigma", "failed", "rejected"]


def fit(tmp_path, api=pl, callbacks=(), report=False, module=None, **kwargs):
    search = TaylorGLO(evaluator="trainer", **SETTINGS | {"report": report})
    trainer = quiet_trainer(api, tmp_path, callbacks=[search, *callbacks], **kwargs)
    trainer.fit(module or seeded(classifier(api)), **loaders())
    return search


def idle(api):
    """A module that learns nothing with its own loss, so that a search keeps another."""

    class Idle(classifier(api)):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return 0 * loss if isinstance(self.criterion, nn.CrossEntropyLoss) else loss

    return seeded(Idle)


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
    for name in ("finals.png", "fitness_of_candidates.png", "candidates.csv", "outcome.txt"):
        assert (tmp_path / "logs/version_0/search" / name).stat().st_size
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
    assert {"search/finals", "search/fitness_of_candidates"} <= set(events.Tags()["images"])


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow not installed")
def test_mlflow(tmp_path):
    logger = pl.loggers.MLFlowLogger(tracking_uri=f"file:{tmp_path / 'mlruns'}")
    fit(tmp_path, logger=logger)
    history = logger.experiment.get_metric_history(logger.run_id, "search/fitness_best")
    assert [metric.step for metric in history] == [1, 2, 3]
    kept = {file.path for file in logger.experiment.list_artifacts(logger.run_id, "search")}
    assert {"search/finals.png", "search/outcome.txt", "search/search.json"} <= kept


def records(path):
    """The records of an offline run, as wandb prints them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in shown.stdout.splitlines()]


def summary_of(found):
    """The summary as the last of its updates leaves it."""
    values = {}
    for record in found:
        values |= record["summary"].get("update", {}) if record["type"] == "summary" else {}
    return values


@pytest.mark.parametrize("name", ["pytorch_lightning", pytest.param("lightning", marks=pytest.mark.slow)])
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
        keep = api.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="last")
        logger = Logger(save_dir=tmp_path, offline=True, project="tests")
        callbacks = [keep, AttractionMonitor(samples=20)]
        search = fit(tmp_path, api, callbacks, report=True, module=idle(api), logger=logger, enable_checkpointing=True)
    finally:
        wandb.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = records(path)
    rows = [record["history"]["item"] for record in found if record["type"] == "history"]
    metrics = [record["metric"] for record in found if record["type"] == "metric"]
    axes = {metric["name"]: metric.get("step_metric") for metric in metrics if metric.get("name")}
    assert axes["search/fitness_best"] == axes["search/sigma"] == axes["search/failed"] == "search/generation"
    # A second glob beside Lightning's own would leave the axis to chance
    assert [metric["glob_name"] for metric in metrics if metric.get("glob_name")] == ["*"]
    generations = [row for row in rows if "search/fitness_best" in row]
    assert [row["search/generation"] for row in generations] == [1, 2, 3]
    for row in generations:
        assert {f"search/{metric}" for metric in EXPECTED} <= row.keys()
    assert any("train/loss" in row for row in rows)
    assert not any("search/original_mean" in row for row in rows)
    # The shape coordinates fix three of the eight parameters at 0
    assert {key for row in rows for key in row if "theta_" in key} == {f"search/theta_{i}" for i in range(3, 7)}
    summary = summary_of(found)
    result = search.result
    assert (summary["search/kept"], summary["search/original_mean"]) == (result.kept, result.original.mean)
    assert json.loads(summary["search/criterion"]) == result.criterion.to_dict()
    assert summary["search/formula"] == (result.criterion.formula or result.original.name)
    assert (summary["search/gain"], summary["search/cost_trainings"]) == (pytest.approx(result.gain), 11)
    assert summary["search/cost_seconds"] == pytest.approx(result.seconds)
    assert not any("theta_" in name or "histogram" in name for name in summary)
    [told] = [record["config"]["update"]["tglo"] for record in found if "tglo" in str(record.get("config", ""))][:1]
    assert (told["generations"], told["monitor"], told["loss"]) == (3, "val/acc", ["criterion"])
    tables = tmp_path.glob("wandb/offline-run-*/files/media/table/search/*.json")
    columns, data = map(json.loads(next(tables).read_text()).get, ("columns", "data"))
    assert columns[:2] == ["generation", "val/acc"]
    assert [row[:2] for row in data] == [[c.generation + 1, c.fitness] for c in result.history]
    shown = [r["config"]["update"] for r in found if "_wandb.visualize.search/candidates" in str(r.get("config", ""))]
    assert shown[0]["_wandb.visualize.search/candidates"]["panel_config"]["fieldSettings"] == {
        "x": "generation",
        "y": "val/acc",
    }
    # The figure of the paper: what the original does to training samples, beside the loss that was kept
    assert result.kept == "metalearned"
    [both] = [row for row in rows if "attraction/losses.path" in row]
    assert "Attraction, original: CrossEntropyLoss: after 1 epoch" in both["attraction/losses.caption"]
    assert "Attraction, kept loss: after 2 epochs" in both["attraction/losses.caption"]
    assert list(tmp_path.glob(f"wandb/offline-run-*/files/{both['attraction/losses.path']}"))
    kept = {file["path"] for r in found if r["type"] == "artifact" for file in r["artifact"]["manifest"]["contents"]}
    assert {"search.json", "last.ckpt"} <= kept
    assert ("report.html" in kept) == (find_spec("matplotlib") is not None)


@pytest.mark.parametrize("bar", [None, "RichProgressBar", "TQDMProgressBar"])
def test_a_bar_beside_lightnings(either_api, tmp_path, capsys, monkeypatch, bar):
    monkeypatch.setattr(rich.get_console(), "width", 110)
    search = TaylorGLO(evaluator="trainer", **(TINY | {"space": None, "strategy": "cmaes"}))
    callbacks = [search] if bar is None else [search, getattr(either_api.callbacks, bar)()]
    trainer = quiet_trainer(either_api, tmp_path, callbacks=callbacks, enable_progress_bar=True)
    trainer.fit(seeded(classifier(either_api)), **loaders())
    shown = capsys.readouterr().out
    # a generation of 4, then the winner and the original
    assert "6/6 max" in shown
    assert "best val/acc" in shown
    assert "Confirmation" in shown
    assert "left 0:00:00 prior shared" in shown


def test_no_bar_of_a_disabled_one(tmp_path, capsys):
    bar = pl.callbacks.TQDMProgressBar()
    bar.disable()
    trainer = quiet_trainer(
        pl, tmp_path, callbacks=[TaylorGLO(evaluator="trainer", **TINY), bar], enable_progress_bar=True
    )
    trainer.fit(seeded(classifier(pl)), **loaders())
    assert "6/6" not in capsys.readouterr().out
