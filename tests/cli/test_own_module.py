"""A user's own module and data in `tglo-train`, and TaylorGLO in a user's own app: what docs/hydra.md shows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.command import in_process
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import ConfigError, Recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hydra.md").read_text(encoding="utf-8")
# A block behind the name of its file
FILES = re.findall(r"`(\w+/[\w/]+\.\w+)`:?(?: holds)?\n\n```\w+\n(.*?)```", PAGE, re.DOTALL)
SMALL = ("search.evaluator=sequential", "search.finals.finalists=1", "search.finals.confirm=2", "trainer.max_epochs=2")
SMALL += ("search.budget.epochs=1", "evaluation.seeds=2", "trainer.enable_progress_bar=false", "logger=none")
MINE = ("--config-dir", "conf", "experiment=mine", *SMALL)
# What lightning-hydra-template's train.py does with its config
APP = """
import hydra, pytorch_lightning as pl
from hydra.utils import instantiate

@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg):
    callbacks = [instantiate(node) for node in cfg.callbacks.values() if "_target_" in node]
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=False)
    trainer.fit(instantiate(cfg.model), datamodule=instantiate(cfg.data))
    print("kept", callbacks[0].result.kept, callbacks[0].result.candidates)

main()
"""
CONFIG = {
    "defaults": ["_self_", {"callbacks": None}],
    "trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": 1, "accelerator": "cpu"},
    "model": {"_target_": "mine.net.Net"},
    "data": {"_target_": "mine.data.Blobs"},
}


@pytest.fixture
def folder(tmp_path):
    assert len(FILES) == 6
    for name, content in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def result_of(folder):
    return json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)


def test_search_train_compare_and_report(folder):
    """In a process that finds the package in the current directory only, as the installed command does."""
    code = "import os, sys; sys.path = [p for p in sys.path if p and p != os.getcwd()]\n"
    code += "from tglo_lightning.cli.commands import train; train()"
    run = ("hydra.run.dir=run", "search.population=3", "evaluation.baselines=[tuned_original]")
    command = [sys.executable, "-c", code, *MINE, *run]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    result = result_of(folder / "run")
    assert set(result["losses"]) == {"original", "tuned_original", "metalearned"}
    assert result["losses"]["original"]["name"] == "cross_entropy"
    assert result["num_classes"] == 3
    assert set(result["tests"]["original"]) == {"acc"}
    assert all(len(loss["test"]["acc"]["values"]) == 2 for loss in result["losses"].values())
    assert "<html" in (folder / "run" / "report.html").read_text()
    state = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["net.0.weight"].shape == (32, 8)


@pytest.mark.parametrize("search", [("search=full", "search.generations=1", "search.population=3"), ("search=race",)])
def test_every_search(folder, search):
    race = ("search.strategy.members=2",) if search == ("search=race",) else ()
    small = [word for word in MINE if race == () or "budget" not in word]
    in_process(folder, "train", *small, *search, *race, "evaluation.report=false", "hydra.run.dir=run")
    result = result_of(folder / "run")
    assert result["search"]["candidates"] == (2 if race else 3)
    assert ("network" in result) == bool(race)


def test_a_sweep_over_losses_without_a_search(folder):
    package = folder / "mine" / "conf"
    (folder / "conf").rename(package)
    (package / "__init__.py").touch()
    found = ["hydra.searchpath=[pkg://mine.conf]", *MINE[2:]]
    sweep = ("search=none", "loss=cross_entropy,gce", "callbacks=compare", "hydra.sweep.dir=sweep")
    printed = in_process(folder, "train", "-m", *found, *sweep, "evaluation.report=false")
    assert [result_of(folder / "sweep" / job)["losses"]["original"]["name"] for job in "01"] == [
        "cross_entropy",
        "GCELoss",
    ]
    assert "GCELoss" in printed
    assert json.loads((folder / "sweep" / "comparison.json").read_text())["runs"] == 2


# Modules with a fault, and batches that are dicts
FAULTS = """

class Untested(Net):
    test_step = pl.LightningModule.test_step


class NoLoss(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return -self(x).log_softmax(1)[torch.arange(len(y)), y].mean()


class Own(Net):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.criterion = torch.nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", self.criterion(self(x), y))


class Two(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + F.cross_entropy(self(batch[0]), batch[1])


class Failing(Net):
    def training_step(self, batch, batch_idx):
        raise RuntimeError("no step")


class OfDicts(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step((batch["x"], batch["y"]), batch_idx)
"""
DICTS = """

class Dicts(Blobs):
    def train_dataloader(self):
        rows = [{"x": x, "y": y} for x, y in self.data]
        return DataLoader(rows[:200], self.batch_size, shuffle=True)


class Soft(Blobs):
    def train_dataloader(self):
        x, y = self.data.tensors
        return DataLoader(TensorDataset(x, torch.nn.functional.one_hot(y).float()), self.batch_size)
"""


def composed(folder, monkeypatch, *overrides):
    monkeypatch.syspath_prepend(str(folder))
    for name, more in (("net", FAULTS), ("data", DICTS)):
        path = folder / "mine" / f"{name}.py"
        path.write_text(path.read_text() + more)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        search_path = f"hydra.searchpath=[{folder / 'conf'}]"
        return compose("train", overrides=[search_path, *MINE[2:], f"paths.output_dir={folder}", *overrides])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["module.hidden=[1,2]"], "^module: "),
        (["module._target_=nothing.Net"], "^module: Error loading 'nothing.Net'.*PYTHONPATH"),
        (["module._target_=mine.nothing.Net"], "^module: Error loading 'mine.nothing.Net'(?!.*PYTHONPATH)"),
        (
            ["search.loss=F.mse_loss", "loss=gce"],
            "^search.loss: `search.loss='F.mse_loss'`: .* It calls 'F.cross_entropy'",
        ),
        (["search.loss=critrion"], "^module, search: `search.loss='critrion'`: Net has no attribute 'critrion'"),
        (["module._target_=mine.net.Two"], "^module, search: .* 2 losses; name the one to replace by `search.loss=`,"),
        (["module._target_=mine.net.NoLoss"], "^module, search: training_step of NoLoss calls no loss"),
        (["module._target_=mine.net.NoLoss", "search=race"], "^module, search: training_step of NoLoss calls no loss"),
        (
            ["module._target_=mine.net.Own", "monitor=val_loss", "mode=min"],
            "^module, search: `monitor='val_loss'` is computed from the loss",
        ),
        (["module._target_=mine.net.Failing"], r"^module, search: .*RuntimeError: no step.* \(net.py:\d+\)$"),
        (["module._target_=mine.net.Untested"], "^task, module: No `test_step.*` method defined"),
        (
            ["task=digits"],
            r"^task, module: .* \(net.py:\d+\); its data are those of Digits.*Type task=NAME",
        ),
        (["task=digits", "loss=gce"], "^task, module: .*Type task=NAME"),
        (["monitor=val_f1"], "^monitor: 'val_f1' is not logged in validation; logged: val_acc"),
        (["search=none", "loss=nce_rce", "callbacks=attraction"], "^callbacks: .*cannot tell the attraction of Net"),
        (["search=none", "loss=logit_adjustment", "task._target_=mine.data.Soft"], r"^loss: .* as in 'loss.priors=\["),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(folder, monkeypatch, overrides, message):
    cfg = composed(folder, monkeypatch, *overrides)
    with pytest.raises(ConfigError, match=message) as told:
        Recipe(cfg)
    assert len(str(told.value).splitlines()) == 1


def test_classes_are_counted_in_any_batch(folder, monkeypatch):
    data = ("task._target_=mine.data.Dicts", "module._target_=mine.net.OfDicts")
    cfg = composed(folder, monkeypatch, *data, "search=none", "loss=class_weights")
    recipe = Recipe(cfg)
    [slot] = recipe.slots()
    labels = recipe.datamodule.data.tensors[1][:200]
    assert slot.get(recipe.module()).priors.tolist() == pytest.approx((labels.bincount() / 200).tolist(), abs=0.02)
    assert Recipe(composed(folder, monkeypatch, *data, "search=none", "loss=robust")).module() is not None


@pytest.mark.parametrize("search", [("search=none",), ("search.population=3",)])
def test_attraction_of_a_loss_that_is_called_inline(folder, search):
    in_process(folder, "train", *MINE, *search, "callbacks=attraction", "evaluation.report=false", "hydra.run.dir=run")
    watched = {path.parent.name for path in (folder / "run" / "seeds").glob("*/attraction.npz")}
    assert watched >= {"original-0", "original-1"}
    assert len(watched) == 2 * len(result_of(folder / "run")["losses"])


def test_three_lines_in_ones_own_app(folder):
    (folder / "train.py").write_text(APP)
    OmegaConf.save(CONFIG, folder / "configs" / "train.yaml")
    short = ("monitor=val_acc", "generations=1", "population=3", "finals=1", "evaluator=sequential", "report=false")
    words = ["callbacks=taylorglo", *(f"++callbacks.taylorglo.{word}" for word in (*short, "seed=0,1"))]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", "-m", *words]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall(r"^kept \w+ 3$", ran.stdout, re.MULTILINE)) == 2
