"""`tglo-train`: search for a loss, train with it, and compare it with the original over fresh seeds."""

import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng

from tglo_lightning.callbacks import TaylorGLO
from tglo_lightning.cli.fresh_seeds import Scores, compare_losses, paired_tests, plain_name, test_values
from tglo_lightning.cli.many import run_many
from tglo_lightning.cli.recipe import ConfigError, Recipe, logged, prepare
from tglo_lightning.cli.shell import console
from tglo_lightning.losses import loss_options
from tglo_lightning.module import LossSlots
from tglo_lightning.reporting import pictures, results_table
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.reporting.loggers import Board, board, draw
from tglo_lightning.reporting.results import described
from tglo_lightning.search import Finalist, SearchResult, SearchSettings
from tglo_lightning.untrusted import write_whole

METALEARNED = "metalearned"
# Searches with the same number of trainings, for what a practitioner would do instead
BASELINES: dict[str, dict[str, str]] = {"tuned_original": {"space": "original"}, "known": {"strategy": "portfolio"}}
_rank_zero_only: Any = rank_zero_only  # it holds the number of this process


def run(cfg: DictConfig) -> float:
    """Search, train with the loss that is kept, compare the losses over fresh seeds; write the result, print a table.

    With `cfg.tasks` see :func:`tglo_lightning.cli.many.run_many`.

    Returns:
        The mean over the fresh seeds of the monitored validation metric of the loss that was kept. Test data have no
        part in it, so a sweeper may optimise it.

    Raises:
        ConfigError: the config cannot run. Nothing was trained or logged then.
    """
    start = time.monotonic()
    path = prepare(cfg) / "result.json"
    if cfg.get("tasks"):
        with isolate_rng(), _wandb_run():
            return run_many(cfg, path.parent)
    with isolate_rng():
        recipe = Recipe(cfg)
    with _wandb_run():
        with isolate_rng():
            loggers = recipe.loggers()
            for logger in loggers:
                logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
            callback = recipe.search()
            module = _fit(recipe, callback, loggers)
            if callback is not None and callback.dry_run:
                return math.nan
            search, slots, searches = None, LossSlots.of([]), {}
            if callback is not None:
                search, slots = callback.result, callback.slots
                searches = {kind: _baseline(recipe, kind, callback.settings) for kind in cfg.evaluation.baselines}
            found = {kind: each.best for kind, each in [*searches.items(), (METALEARNED, search)] if each and each.best}
            criteria = {kind: finalist.criterion for kind, finalist in found.items()}
            scores = compare_losses(recipe, slots, criteria)
            losses = _losses(recipe, slots, found, scores)
            network = {}
            if search is not None and search.curves is not None:
                network = logged(recipe.quiet_trainer().test(module, datamodule=recipe.datamodule, verbose=False))
        result = _result(recipe, search, losses, scores, time.monotonic() - start)
        if network:
            result["network"] = {plain_name(name): value for name, value in network.items()}
        if first := _rank_zero_only.rank == 0:
            write_whole(path, json.dumps(result, indent=2, allow_nan=False) + "\n")
            curves = {kind: each.curves for kind, each in scores.items()}
            write_whole(path.with_name("curves.json"), json.dumps(curves, allow_nan=False) + "\n")
            files = [path, report_quietly(path.parent) if cfg.evaluation.report else None]
            files.append(_log([board(logger) for logger in loggers], result, scores, [file for file in files if file]))
    if first:
        _print(result, search)
        for file in files:
            if file is not None:
                print(file)
    return statistics.fmean(scores[result["kept"]].monitor)


def _fit(recipe: Recipe, search: TaylorGLO | None, loggers: list[Logger]) -> Any:
    """Fit as a user of the callback does: the search at the start, then a training with the loss that it kept."""
    pl.seed_everything(recipe.cfg.seed, verbose=False)
    callbacks = recipe.callbacks() + ([] if search is None else [search])
    # Without a logger Lightning would make one of its own
    trainer = recipe.trainer(logger=loggers or False, callbacks=callbacks)
    module = recipe.module()
    trainer.fit(module, datamodule=recipe.datamodule)
    return module


def _baseline(recipe: Recipe, kind: str, own: SearchSettings) -> SearchResult | None:
    """Search for a baseline with as many trainings as the search for the metalearned loss, whose settings are given."""
    assert own.generations is not None
    size = {"generations": own.generations, "population": own.candidates // own.generations}
    journal = str(Path(recipe.cfg.paths.output_dir) / f"{kind}.jsonl")
    search = recipe.search(**BASELINES[kind], **size, journal=journal)
    assert search is not None
    pl.seed_everything(recipe.cfg.seed, verbose=False)
    # The search without the training after it; the epochs stay, since candidates may use them
    silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = recipe.trainer(callbacks=[search], max_steps=0, **silent)
    trainer.fit(recipe.module(), datamodule=recipe.datamodule)
    return search.result


def _losses(
    recipe: Recipe, slots: LossSlots, found: dict[str, Finalist], scores: dict[str, Scores]
) -> dict[str, dict[str, Any]]:
    """Return what `result.json` holds of each loss."""
    module = recipe.module()
    if not slots:
        try:
            slots = recipe.slots()
        except ConfigError:  # a module whose loss cannot be replaced, and is not to be
            slots = LossSlots.of([])
    present = [slot.get(module) for slot in slots]
    own = slots.name(module) if slots else f"loss of {type(module).__name__}"
    options = loss_options(present[0]) if present else {}
    losses: dict[str, dict[str, Any]] = {"original": {"name": own, "options": options, "criterion": None}}
    losses["original"]["formula"] = ", ".join(filter(None, (getattr(loss, "formula", "") for loss in present)))
    for kind, best in found.items():
        built = zip(best.criterion.losses, present, strict=False)
        name = ", ".join(spec.build(original).name for spec, original in built) or own
        losses[kind] = {"name": name, "criterion": best.criterion.to_dict(), "formula": best.criterion.formula}
    for kind, loss in losses.items():
        loss["test"] = scores[kind].summary()
    return losses


def _result(
    recipe: Recipe, search: SearchResult | None, losses: dict[str, Any], scores: dict[str, Scores], seconds: float
) -> dict[str, Any]:
    """Return what `result.json` holds."""
    counts = {name: getattr(search, name, 0) for name in ("candidates", "failed", "trainings", "seconds")}
    packages = ("tglo-lightning", "torch", "pytorch-lightning", "cma", "numpy")
    known = None if search is None else search.settings.get("num_classes")
    return {
        "monitor": recipe.cfg.monitor,
        "num_classes": getattr(recipe.datamodule, "num_classes", known),
        "kept": "original" if search is None else search.kept,
        "losses": losses,
        "logged": scores["original"].logged,
        "tests": {kind: test for kind in scores if (test := paired_tests(scores, kind))},
        "search": counts | {"rejected": 0 if search is None else sum(search.rejected)},
        "seconds": seconds,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _log(boards: list[Board], result: dict[str, Any], scores: dict[str, Scores], files: list[Path]) -> Path | None:
    """Log what the fresh seeds gave, the files, and the attraction under all losses; return its picture, if any."""
    kept = result["kept"]
    values: dict[str, Any] = {f"kept/{result['monitor']}": statistics.fmean(scores[kept].monitor)}
    values |= test_values({kind: loss["test"] for kind, loss in result["losses"].items()})
    for kind, tests in result["tests"].items():
        for name, p_values in tests.items():
            values[f"test/against_{kind}/{name}_p_one_sided"] = p_values["p_one_sided"]
    values |= {f"test/network/{name}": value for name, value in result.get("network", {}).items()}
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
    out = console(120)
    out.print(results_table(result))
    if search is not None:
        found = "no finalist could be trained" if search.best is None else f"metalearned {_figures(search.best)}"
        told = f"Kept the {search.kept} loss by {search.monitor}: {found}, original {_figures(search.original)}."
        out.print(told)
    for kind, loss in result["losses"].items():
        if kind != "original":
            out.print(f"{kind}: {loss['formula'] or loss['name']}")
    if "network" in result:
        out.print("the network of the race: " + ", ".join(f"{k} {v:.4f}" for k, v in result["network"].items()))


def _figures(finalist: Finalist) -> str:
    n = len(finalist.fitness)
    return f"{finalist.mean:.4f}{f' ± {finalist.std:.4f}' if n > 1 else ''} (n = {n})"


@contextmanager
def _wandb_run() -> Iterator[None]:
    """End the W&B run of this job with it, so that the next job of a sweep starts one of its own."""
    failed = True
    try:
        yield
        failed = False
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish(exit_code=int(failed))
