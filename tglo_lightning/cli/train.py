"""`tglo-train`: metalearn a loss from a Hydra config, and compare it with the original over fresh seeds."""

import json
import logging
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console

import tglo_lightning
from tglo_lightning.cli.checks import writable
from tglo_lightning.cli.comparison import Scores, fresh_seeds, train_and_test, welch_tests
from tglo_lightning.cli.recipe import Recipe
from tglo_lightning.losses import as_loss, loss_like, loss_options
from tglo_lightning.models import Classifier
from tglo_lightning.reporting import results_table
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.search import Finalist, SearchResult

# Losses that are found beside the original one: by the search, and by its fair opponent
FOUND = ("metalearned", "opponent")
# With several ranks it holds the number of this process
_rank_zero_only: Any = rank_zero_only


def run(cfg: DictConfig) -> float:
    """Search a loss, train with the better one, compare both over fresh seeds; write result and report, print a table.

    Returns:
        The mean over the fresh seeds of the monitored validation metric of the loss that was kept. Test data have no
        part in it, so it is safe to optimise.

    Raises:
        ConfigError: the config cannot run. Nothing was trained or logged then.
    """
    start = time.monotonic()
    _quiet()
    writable(cfg, "paths.output_dir")
    with isolate_rng():
        recipe = Recipe(cfg)
    if cfg.num_threads is not None:
        torch.set_num_threads(cfg.num_threads)
    path = Path(cfg.paths.output_dir) / "result.json"
    failed = True
    try:
        with isolate_rng():
            logger = recipe.logger()
            if logger is not None:
                logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
            search = _search_and_train(recipe, logger)
            opponent = _opponent(recipe)
            scores = _compare(recipe, search, opponent)
        result = _result(recipe, search, opponent, scores, time.monotonic() - start)
        if first := _rank_zero_only.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
            curves = {kind: each.curves for kind, each in scores.items()}
            path.with_name("curves.json").write_text(json.dumps(curves, allow_nan=False) + "\n")
            if logger is not None:
                _log(logger, result)
        failed = False
    finally:
        _finish_wandb(exit_code=int(failed))
    if first:
        _print(result, search, path)
        if cfg.evaluation.report and (report := report_quietly(path.parent)) is not None:
            print(report)
    return statistics.fmean(scores[result["kept"]].monitor)


def _search_and_train(recipe: Recipe, logger: Logger | None) -> SearchResult | None:
    """The fit that a user of the callback makes: the search at its start, then a training with what it kept."""
    pl.seed_everything(recipe.cfg.seed, verbose=False)
    search = recipe.search()
    callbacks = recipe.callbacks() + ([] if search is None else [search])
    # without a logger of ours Lightning would make one of its own
    trainer = recipe.trainer(logger=logger if logger is not None else False, callbacks=callbacks)
    trainer.fit(recipe.module(), datamodule=recipe.datamodule)
    return None if search is None else search.result


def _opponent(recipe: Recipe) -> SearchResult | None:
    """A search of the same budget over smoothed cross-entropy with a factor, if the config asks for one."""
    if not recipe.cfg.evaluation.opponent:
        return None
    journal = Path(recipe.cfg.paths.output_dir) / "opponent.jsonl"
    search = recipe.search(parameterization="smoothed_ce", journal=str(journal))
    if search is None:
        return None
    pl.seed_everything(recipe.cfg.seed, verbose=False)
    # the search alone, without the training after it; the epochs stay, since candidates may ask for them
    silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = recipe.trainer(callbacks=[search], max_steps=0, **silent)
    trainer.fit(recipe.module(), datamodule=recipe.datamodule)
    return search.result


def _compare(recipe: Recipe, *searches: SearchResult | None) -> dict[str, Scores]:
    """Scores of the original loss and, where there are any, of the best losses that were found, kept or not."""
    modules: dict[str, Callable[[], Classifier]] = {"original": recipe.module}
    for kind, search in zip(FOUND, searches, strict=True):
        if search is not None and search.best is not None and search.best.theta is not None:
            modules[kind] = partial(_found, recipe, search.best.theta)
    cfg = recipe.cfg
    progress = cfg.trainer.get("enable_progress_bar", True)
    return train_and_test(recipe, modules, fresh_seeds(cfg.seed, cfg.evaluation.seeds), cfg.monitor, progress=progress)


def _found(recipe: Recipe, theta: list[float]) -> Classifier:
    """An untrained module with the loss, or the losses, that were found."""
    module = recipe.module()
    recipe.slots().install(module, theta)
    return module


def _result(
    recipe: Recipe,
    search: SearchResult | None,
    opponent: SearchResult | None,
    scores: dict[str, Scores],
    seconds: float,
) -> dict[str, Any]:
    losses: dict[str, Any] = {
        "original": {
            **_described(recipe.criterion()),
            "options": loss_options(recipe.criterion()),
            "test": scores["original"].summary(),
        },
    }
    for kind, outcome in zip(FOUND, (search, opponent), strict=True):
        if kind in scores and outcome is not None and outcome.best is not None and outcome.best.theta is not None:
            losses[kind] = {
                "name": loss_like(recipe.criterion(), split_theta(outcome.best.theta, outcome.best.losses)[0]).name,
                "theta": outcome.best.theta,
                "formula": outcome.best.formula,
                "test": scores[kind].summary(),
            }
    against_opponent = welch_tests(scores, "opponent")
    return {
        "monitor": recipe.cfg.monitor,
        "num_classes": recipe.datamodule.num_classes,
        "kept": "original" if search is None else search.kept,
        "losses": losses,
        "welch": welch_tests(scores),
        **({"welch_opponent": against_opponent} if against_opponent else {}),
        "search": {
            "candidates": 0 if search is None else search.candidates,
            "infeasible": 0 if search is None else search.infeasible,
            "failed": 0 if search is None else search.failed,
            "seconds": 0.0 if search is None else search.seconds,
        },
        "seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            "tglo-lightning": tglo_lightning.__version__,
            **{name: version(name) for name in ("torch", "pytorch-lightning", "cma", "numpy")},
        },
    }


def _described(criterion: torch.nn.Module) -> dict[str, Any]:
    """Name of a loss that was given, and its parameters if it has any."""
    try:
        loss = as_loss(criterion)
    except TypeError:  # a loss from outside of the family, given as loss._target_
        return {"name": type(criterion).__name__}
    theta = getattr(loss, "theta", None)
    return {"name": loss.name} | ({} if theta is None else {"theta": theta.tolist(), "formula": loss.formula})


def _log(logger: Logger, result: dict[str, Any]) -> None:
    """Log means and deviations over the fresh seeds; a W&B run has them in its summary."""
    metrics: dict[str, float | None] = {}
    for kind, loss in result["losses"].items():
        for name, values in loss["test"].items():
            metrics |= {f"test/{kind}/{name}_{part}": values[part] for part in ("mean", "std")}
    for test in ("welch", "welch_opponent"):
        for name, p_values in result.get(test, {}).items():
            metrics[f"test/{test}/{name}_p_one_sided"] = p_values["p_one_sided"]
    finite = {key: value for key, value in metrics.items() if value is not None}
    if isinstance(logger, WandbLogger):
        best = result["losses"].get("metalearned", {})
        texts = {"kept": result["kept"], "formula": best.get("formula"), "theta": best.get("theta")}
        logger.experiment.summary.update(finite | {k: v for k, v in texts.items() if v is not None})
    else:
        logger.log_metrics(finite)
        logger.save()


def _print(result: dict[str, Any], search: SearchResult | None, path: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    console.print(results_table(result))
    if search is not None:
        chosen = "no finalist could be trained" if search.best is None else f"metalearned {_figures(search.best)}"
        console.print(
            f"Kept the {search.kept} loss by {search.monitor}: {chosen}, original {_figures(search.original)}."
        )
    for kind in FOUND:
        if kind in result["losses"]:
            console.print(f"{kind}: f(y, h) = {result['losses'][kind]['formula']}")
    console.print(str(path))


def _figures(finalist: Finalist) -> str:
    n = len(finalist.fitness)
    return f"{finalist.mean:.4f}{f' ± {finalist.std:.4f}' if n > 1 else ''} (n = {n})"


def _quiet() -> None:
    """Silence what Lightning says about every one of the many small trainings."""
    for name in ("pytorch_lightning", "lightning.pytorch"):  # with both installed the second one speaks for the first
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*smaller than the logging interval.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)


def _finish_wandb(exit_code: int) -> None:
    """End the W&B run of this job, so that the next job of a sweep starts one of its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


if __name__ == "__main__":
    from tglo_lightning.cli.commands import train

    train()
