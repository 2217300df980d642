"""`tglo-train experiment=multi_task`: one loss for several tasks at once."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.table import Table
from torch import nn

from tglo_lightning.callbacks.curves import CurveRecorder
from tglo_lightning.callbacks.progress import SearchMonitor
from tglo_lightning.cli.fresh_seeds import Scores, compare_losses, test_values
from tglo_lightning.cli.recipe import ConfigError, Recipe, naming
from tglo_lightning.cli.shell import console
from tglo_lightning.reporting.loggers import board
from tglo_lightning.reporting.numbers import mean_sd
from tglo_lightning.search import Race, SearchResult, minimize_many
from tglo_lightning.search.many import transferred
from tglo_lightning.untrusted import write_whole

# What decides the result beside the settings of the search
IDENTITY = ("tasks", "arch", "module", "optimizer", "scheduler", "trainer", "monitor", "mode")


def run_many(cfg: DictConfig, folder: Path) -> float:
    """Search one loss for all of `cfg.tasks`; write `search.json` and `prior.json`, compare it on each task.

    Returns:
        The mean gain of the best loss on cross-entropy, in the finals of the search.

    Raises:
        ConfigError: the config cannot run.
    """
    recipes: dict[str, Recipe] = {}
    for name, task in cfg.tasks.items():
        own = cfg.copy()
        with open_dict(own), naming(f"tasks.{name}"):
            own.task = task
            recipes[str(name)] = Recipe(own)
    first = next(iter(recipes.values()))
    length, search = cfg.search.budget.epochs or cfg.search.budget.steps, first.search()
    if search is None or length is None or isinstance(search.settings.strategy, Race):
        raise ConfigError("search: several tasks need a search, which no race is, with a budget of epochs or steps")
    # How long they train is up to the functions
    settings = dataclasses.replace(search.settings, budget=None)
    if search.dry_run:
        print(f"{settings.trainings} trainings on each of {len(recipes)} tasks, with cross-entropy beside them")
        return math.nan
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    identity = {name: values[name] for name in IDENTITY} | {"budget": values["search"]["budget"]}
    identity["trainer"] = {k: v for k, v in identity["trainer"].items() if k != "default_root_dir"}
    loggers = first.loggers()
    for logger in loggers:
        logger.log_hyperparams(values)
    boards = [board(logger) for logger in loggers]
    hidden = not cfg.trainer.get("enable_progress_bar", True)
    monitor = SearchMonitor(boards, settings, "gain", prior=search.prior, disable=hidden)
    with naming("search"):
        result = minimize_many(
            [partial(error_rate, recipe) for recipe in recipes.values()],
            [recipe.datamodule.num_classes for recipe in recipes.values()],
            settings=settings,
            journal=cfg.search.journal,
            progress=monitor,
            identity=identity,
        )
        monitor.on_search_end(result)
        prior = None if result.best is None else result.to_prior()
    out = console(120)
    out.print(f"Mean gain on cross-entropy: {result.gain:.4f}; kept: {result.kept}.")
    if prior is not None:
        path = folder / "prior.json"
        write_whole(path, json.dumps(prior.to_dict(), indent=1, allow_nan=False) + "\n")
        scores = {name: _compare(recipe, result) for name, recipe in recipes.items()}
        tested = {f"{task}/{kind}": own.summary() for task, each in scores.items() for kind, own in each.items()}
        for each in boards:
            each.outcome(test_values(tested))
            each.files("result", "result", [path])
        out.print(_table(scores))
        out.print(str(path))
    return math.nan if result.best is None else result.best.mean


def error_rate(recipe: Recipe, loss: nn.Module) -> float:
    """Train a network with a loss as long as candidates train; return its error on validation data.

    That is the error at the end, or that of the best epoch by the `score` of the budget.
    """
    cfg = recipe.cfg
    module = recipe.module()
    for slot in recipe.slots():
        slot.set(module, loss)
    epochs, steps = cfg.search.budget.epochs, cfg.search.budget.steps
    length = {"max_epochs": epochs} if epochs is not None else {"max_epochs": -1, "max_steps": steps}
    recorder = CurveRecorder()
    trainer = recipe.quiet_trainer(callbacks=[recorder], **length)
    trainer.fit(module, datamodule=recipe.datamodule)
    values = [trainer.validate(module, datamodule=recipe.datamodule, verbose=False)[0][cfg.monitor]]
    if cfg.search.budget.score == "best":
        values += [value for value in recorder.curves.get(cfg.monitor, ()) if value is not None]
    errors = [1 - float(value) if cfg.mode == "max" else float(value) for value in values]
    return min(filter(math.isfinite, errors), default=math.nan)


def _compare(recipe: Recipe, result: SearchResult) -> dict[str, Scores]:
    """Train with the loss of the config and with the best one over fresh seeds."""
    assert result.best is not None
    criterion = transferred(result.best.criterion, result.settings["num_classes"], recipe.datamodule.num_classes)
    return compare_losses(recipe, recipe.slots(), {"metalearned": criterion})


def _table(scores: dict[str, dict[str, Scores]]) -> Table:
    table = Table("task", "metric", "original", "metalearned", title="Test data, mean ± sd over fresh seeds")
    for task, each in scores.items():
        for metric, values in each["original"].test.items():
            table.add_row(task, metric, mean_sd(values), mean_sd(each["metalearned"].test[metric]))
    return table
