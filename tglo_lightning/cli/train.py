"""`tglo-train`: search for a loss, train with it, and compare it with the original over fresh seeds."""

import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console

from tglo_lightning.cli.fresh_seeds import Scores, fresh_seeds, paired_tests, train_and_test
from tglo_lightning.cli.recipe import Recipe, prepare
from tglo_lightning.evaluation.inner import set_step
from tglo_lightning.losses import loss_options
from tglo_lightning.losses.registry import loss_name
from tglo_lightning.models import Classifier
from tglo_lightning.reporting import pictures, results_table
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.reporting.loggers import Board, board, draw
from tglo_lightning.reporting.results import described
from tglo_lightning.search import Criterion, Finalist, SearchResult
from tglo_lightning.untrusted import write_whole

METALEARNED = "metalearned"
# Searches with the same number of trainings, for what a practitioner would do instead
BASELINES: dict[str, dict[str, str]] = {"tuned_original": {"space": "original"}, "known": {"strategy": "portfolio"}}
_rank_zero_only: Any = rank_zero_only  # it holds the number of this process


def run(cfg: DictConfig) -> float:
    """Search, train with the loss that is kept, compare the losses over fresh seeds; write the result, print a table.

    Returns:
        The mean over the fresh seeds of the monitored validation metric of the loss that was kept. Test data have no
        part in it, so a sweeper may optimise it.

    Raises:
        ConfigError: the config cannot run. Nothing was trained or logged then.
    """
    start = time.monotonic()
    path = prepare(cfg) / "result.json"
    with isolate_rng():
        recipe = Recipe(cfg)
    failed = True
    try:
        with isolate_rng():
            loggers = recipe.loggers()
            for logger in loggers:
                logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
            search, network = _search_and_train(recipe, loggers)
            if cfg.search.get("dry_run"):
                failed = False
                return math.nan
            searches = {kind: _baseline(recipe, kind) for kind in cfg.evaluation.baselines} | {METALEARNED: search}
            found = {kind: each.best for kind, each in searches.items() if each and each.best}
            scores = _compare(recipe, found)
        result = _result(recipe, search, found, scores, time.monotonic() - start) | network
        if first := _rank_zero_only.rank == 0:
            write_whole(path, json.dumps(result, indent=2, allow_nan=False) + "\n")
            curves = {kind: each.curves for kind, each in scores.items()}
            write_whole(path.with_name("curves.json"), json.dumps(curves, allow_nan=False) + "\n")
            files = [path, report_quietly(path.parent) if cfg.evaluation.report else None]
            files.append(_log([board(logger) for logger in loggers], result, scores, [file for file in files if file]))
        failed = False
    finally:
        _finish_wandb(exit_code=int(failed))
    if first:
        _print(result, search)
        for file in files:
            if file is not None:
                print(file)
    return statistics.fmean(scores[result["kept"]].monitor)


def _search_and_train(recipe: Recipe, loggers: list[Logger]) -> tuple[SearchResult | None, dict[str, Any]]:
    """Fit as a user of the callback does: the search at the start, then a training with the loss that it kept.

    Returns:
        The result; for a race also what the network that it kept comes to on test data, under ``"network"``.
    """
    pl.seed_everything(recipe.cfg.seed, verbose=False)
    search = recipe.search()
    callbacks = recipe.callbacks() + ([] if search is None else [search])
    # Without a logger Lightning would make one of its own
    trainer = recipe.trainer(logger=loggers or False, callbacks=callbacks)
    module = recipe.module()
    trainer.fit(module, datamodule=recipe.datamodule)
    result = None if search is None else search.result
    if result is None or result.curves is None:
        return result, {}
    [tested] = recipe.quiet_trainer().test(module, datamodule=recipe.datamodule, verbose=False)
    return result, {"network": {name.removeprefix("test/"): value for name, value in tested.items()}}


def _baseline(recipe: Recipe, kind: str) -> SearchResult | None:
    """Search for a baseline with as many trainings as the search for the metalearned loss."""
    journal = Path(recipe.cfg.paths.output_dir) / f"{kind}.jsonl"
    own = recipe.search()
    if own is None:
        return None
    generations = own.settings.generations
    size = {"generations": generations, "population": own.settings.candidates // generations}
    search = recipe.search(**BASELINES[kind], **size, journal=str(journal))
    assert search is not None
    pl.seed_everything(recipe.cfg.seed, verbose=False)
    # The search without the training after it; the epochs stay, since candidates may use them
    silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = recipe.trainer(callbacks=[search], max_steps=0, **silent)
    trainer.fit(recipe.module(), datamodule=recipe.datamodule)
    return search.result


def _compare(recipe: Recipe, found: dict[str, Finalist]) -> dict[str, Scores]:
    """Train the original loss and what was found over fresh seeds."""

    def trained_with(criterion: Criterion) -> Classifier:
        module = recipe.module()
        recipe.slots().install(module, criterion)
        set_step(module, criterion.step)
        return module

    modules: dict[str, Callable[[], Classifier]] = {"original": recipe.module}
    modules |= {kind: partial(trained_with, finalist.criterion) for kind, finalist in found.items()}
    cfg = recipe.cfg
    progress = cfg.trainer.get("enable_progress_bar", True)
    return train_and_test(recipe, modules, fresh_seeds(cfg.seed, cfg.evaluation.seeds), progress=progress)


def _result(
    recipe: Recipe, search: SearchResult | None, found: dict[str, Finalist], scores: dict[str, Scores], seconds: float
) -> dict[str, Any]:
    """Return what `result.json` holds."""
    original = recipe.criterion()
    losses: dict[str, Any] = {"original": {"name": loss_name(original), "options": loss_options(original)}}
    losses["original"] |= {"criterion": None, "formula": getattr(original, "formula", "")}
    for kind, best in found.items():
        name = ", ".join(spec.build(original).name for spec in best.criterion.losses) or losses["original"]["name"]
        losses[kind] = {"name": name, "criterion": best.criterion.to_dict(), "formula": best.criterion.formula}
    for kind, loss in losses.items():
        loss["test"] = scores[kind].summary()
    tests = {kind: test for kind in scores if (test := paired_tests(scores, kind))}
    counts = {name: getattr(search, name, 0) for name in ("candidates", "failed", "trainings", "seconds")}
    packages = ("tglo-lightning", "torch", "pytorch-lightning", "cma", "numpy")
    return {
        "monitor": recipe.cfg.monitor,
        "num_classes": recipe.datamodule.num_classes,
        "kept": "original" if search is None else search.kept,
        "losses": losses,
        "tests": tests,
        "search": counts | {"rejected": 0 if search is None else sum(search.rejected)},
        "seconds": seconds,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _log(boards: list[Board], result: dict[str, Any], scores: dict[str, Scores], files: list[Path]) -> Path | None:
    """Log what the fresh seeds gave, the files, and the attraction under all losses; return its picture, if any."""
    kept = result["kept"]
    values: dict[str, Any] = {f"kept/{result['monitor']}": statistics.fmean(scores[kept].monitor)}
    for kind, loss in result["losses"].items():
        for name, metric in loss["test"].items():
            values |= {f"test/{kind}/{name}_{part}": metric[part] for part in ("mean", "std")}
    for kind, tests in result["tests"].items():
        for name, p_values in tests.items():
            values[f"test/against_{kind}/{name}_p_one_sided"] = p_values["p_one_sided"]
    for each in boards:
        each.outcome({k: v for k, v in values.items() if v is not None})
        each.files("result", "result", files)
    folder = files[0].parent
    records = {
        f"{kind}: {described(loss['name'], [loss.get('options', {})])}": AttractionRecord.load(file)
        for kind, loss in result["losses"].items()
        for file in sorted((folder / "seeds" / f"{kind}-0").glob("*.npz"))[:1]
    }
    if not records:
        return None
    figure = draw(boards, "attraction/losses", lambda: pictures.attraction(records))
    return None if figure is None else pictures.save(figure, folder / "attraction.png")


def _print(result: dict[str, Any], search: SearchResult | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    console.print(results_table(result))
    if search is not None:
        found = "no finalist could be trained" if search.best is None else f"metalearned {_figures(search.best)}"
        told = f"Kept the {search.kept} loss by {search.monitor}: {found}, original {_figures(search.original)}."
        console.print(told)
    for kind, loss in result["losses"].items():
        if kind != "original":
            console.print(f"{kind}: {loss['formula'] or loss['name']}")
    if "network" in result:
        console.print("the network of the race: " + ", ".join(f"{k} {v:.4f}" for k, v in result["network"].items()))


def _figures(finalist: Finalist) -> str:
    n = len(finalist.fitness)
    return f"{finalist.mean:.4f}{f' ± {finalist.std:.4f}' if n > 1 else ''} (n = {n})"


def _finish_wandb(exit_code: int) -> None:
    """End the W&B run of this job, so that the next job of a sweep starts one of its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)
