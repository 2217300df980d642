"""The W&B recipe as data: a workspace of metrics that are logged, and a sweep of configs that compose."""

import csv
import itertools
import runpy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import yaml
from helpers.data import loaders
from helpers.modules import TINY, classifier, quiet_trainer
from hydra import compose, initialize_config_dir

from tglo_lightning import AttractionMonitor, TaylorGLO
from tglo_lightning.cli.commands import CONFIG_DIR

RECIPE = Path(__file__).parents[1] / "recipes" / "wandb"


def test_the_workspace_shows_what_is_logged(tmp_path):
    pytest.importorskip("wandb_workspaces")
    pytest.importorskip("matplotlib")
    built = runpy.run_path(str(RECIPE / "workspace.py"))["workspace"]("someone", "digits")
    assert [section.name for section in built.sections] == ["Search", "Attraction", "Training", "Validation"]
    logger = pl.loggers.CSVLogger(tmp_path, name="", version="")
    callbacks = [TaylorGLO(**TINY | {"generations": 2}, evaluator="sequential"), AttractionMonitor(samples=20)]
    quiet_trainer(pl, tmp_path, callbacks=callbacks, logger=logger, log_every_n_steps=1).fit(
        classifier(pl)(), **loaders()
    )
    with open(tmp_path / "metrics.csv") as file:
        logged = {*next(csv.reader(file)), "val/nll", "attraction/losses"}  # of tglo-train
    logged |= {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.png")}
    sections = yaml.safe_load((RECIPE / "workspace.yaml").read_text())
    for section, shown in zip(sections.values(), built.sections, strict=True):
        names = [section["axis"], *itertools.chain(*section["plots"].values()), *section.get("media", [])]
        assert set(names) <= logged
        assert len(shown.panels) == len(section["plots"]) + ("media" in section)


def test_every_run_of_the_sweep_composes():
    sweep = yaml.safe_load((RECIPE / "sweep.yaml").read_text())
    assert (sweep["program"], sweep["metric"]["goal"]) == ("tglo-train", "maximize")
    names = list(sweep["parameters"])
    grid = list(itertools.product(*(sweep["parameters"][name]["values"] for name in names)))
    assert len(grid) == 9
    for values in (grid[0], grid[-1]):
        # As `wandb agent` fills in the command
        given = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        fill = {"${program}": [sweep["program"]], "${args_no_hyphens}": given}
        program, *overrides = itertools.chain(*(fill.get(part, [part]) for part in sweep["command"]))
        assert program == "tglo-train"
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = compose("train", overrides=[*overrides, "paths.output_dir=x"])
        assert (cfg.seed, cfg.task.label_noise) == values
        assert sweep["metric"]["name"] == f"kept/{cfg.monitor}"
