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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("module.hidden=[1,2]", "^module: "),
        ("module._target_=mine.nothing.Net", "^module: Error loading 'mine.nothing.Net'.*PYTHONPATH"),
        ("search.loss=F.mse_loss", "^search.loss: .*does not call it. It calls 'F.cross_entropy'"),
        ("module._target_=mine.net.Untested", "^task, module: No `test_step.*` method defined"),
        ("monitor=val_f1", "^monitor: 'val_f1' is not logged in validation; logged: val_acc"),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(folder, monkeypatch, override, message):
    monkeypatch.syspath_prepend(str(folder))
    net = folder / "mine" / "net.py"
    net.write_text(net.read_text() + "\n\nclass Untested(Net):\n    test_step = pl.LightningModule.test_step\n")
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        search_path = f"hydra.searchpath=[{folder / 'conf'}]"
        cfg = compose("train", overrides=[search_path, *MINE[2:], f"paths.output_dir={folder}", "loss=gce", override])
    with pytest.raises(ConfigError, match=message):
        Recipe(cfg)


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
