"""Trainings of losses over fresh seeds, each tested once."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.console import Console
from rich.progress import track

from tglo_lightning.callbacks import AttractionMonitor
from tglo_lightning.callbacks.curves import CurveRecorder
from tglo_lightning.cli.recipe import Recipe, logged
from tglo_lightning.evaluation.inner import set_step
from tglo_lightning.module import LossSlots
from tglo_lightning.reporting import summarize, verdict
from tglo_lightning.reporting.numbers import LESS_IS_BETTER
from tglo_lightning.search import Criterion


@dataclass
class Scores:
    """Scores of one loss, one value per seed."""

    monitor: list[float] = field(default_factory=list)  # the monitored validation metric
    test: dict[str, list[float]] = field(default_factory=dict)  # each test metric by name
    logged: dict[str, str] = field(default_factory=dict)  # the name that the module logs it under
    curves: list[dict[str, list[float | None]]] = field(default_factory=list)  # see `CurveRecorder`

    def summary(self) -> dict[str, Any]:
        """Return `{metric: {"values", "mean", "std"}}` of the test metrics."""
        return {name: summarize(values) for name, values in self.test.items()}


def plain_name(name: str) -> str:
    """Return the name of a test metric without what says that it is one."""
    return name.removeprefix("test/").removeprefix("test_")


def test_values(losses: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return what loggers get of the test metrics of each loss, see :meth:`Scores.summary`."""
    return {
        f"test/{kind}/{name}_{part}": metric[part]
        for kind, metrics in losses.items()
        for name, metric in metrics.items()
        for part in ("mean", "std")
        if metric[part] is not None
    }


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Return `count` seeds that follow from `seed` and are used for nothing else."""
    return [int(s) for s in np.random.SeedSequence((seed, 0x7E57)).generate_state(count)]


def compare_losses(recipe: Recipe, slots: LossSlots, criteria: Mapping[str, Criterion]) -> dict[str, Scores]:
    """Train with the original loss and with others, in their places in the module, over the fresh seeds of the config.

    Returns:
        The scores of each by name; those of the original as `"original"`.
    """

    def trained_with(criterion: Criterion) -> Any:
        module = recipe.module()
        slots.install(module, criterion)
        set_step(module, criterion.step)
        return module

    modules = {"original": recipe.module} | {name: partial(trained_with, each) for name, each in criteria.items()}
    cfg = recipe.cfg
    progress = cfg.trainer.get("enable_progress_bar", True)
    return train_and_test(recipe, modules, fresh_seeds(cfg.seed, cfg.evaluation.seeds), progress=progress)


def train_and_test(
    recipe: Recipe, modules: Mapping[str, Callable[[], Any]], seeds: list[int], *, progress: bool
) -> dict[str, Scores]:
    """Train a fresh module for every loss and seed, as the recipe says, and test it once.

    A seed covers initial weights and data order, and is the same for every loss.

    Args:
        recipe: builds trainers.
        modules: for the name of each loss, a function that builds an untrained module with it.
        seeds: one training of each loss per seed.
        progress: show a progress bar on stderr.
    """
    cfg = recipe.cfg
    scores = {name: Scores() for name in modules}
    jobs = [(name, seed) for seed in seeds for name in modules]
    shown = track(jobs, "Fresh seeds", console=Console(stderr=True), transient=True, disable=not progress)
    for name, seed in shown:
        pl.seed_everything(seed, verbose=False)
        module = modules[name]()
        # A folder of its own for what callbacks write
        folder = Path(cfg.paths.output_dir) / "seeds" / f"{name}-{seeds.index(seed)}"
        recorder = CurveRecorder()
        callbacks = [c for c in recipe.callbacks(checkpoints=False) if _measurable(recipe, module, c)] + [recorder]
        options: dict[str, Any] = {"callbacks": callbacks, "default_root_dir": str(folder)}
        if takes_best := cfg.evaluation.score == "best":
            best = ModelCheckpoint(folder, monitor=cfg.monitor, mode=cfg.mode, save_weights_only=True)
            options |= {"callbacks": [*callbacks, best], "enable_checkpointing": True}
        trainer = recipe.quiet_trainer(**options)
        trainer.fit(module, datamodule=recipe.datamodule)
        if takes_best:
            module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
            Path(best.best_model_path).unlink()
        validated, tested = (
            logged(evaluate(module, datamodule=recipe.datamodule, verbose=False))
            for evaluate in (trainer.validate, trainer.test)
        )
        scores[name].curves.append(recorder.curves)
        scores[name].monitor.append(float(validated[cfg.monitor]))
        for key, value in tested.items():
            scores[name].test.setdefault(plain_name(key), []).append(float(value))
            scores[name].logged[plain_name(key)] = key
    return scores


def _measurable(recipe: Recipe, module: Any, callback: pl.Callback) -> bool:
    """Whether a callback can follow this training: an `AttractionMonitor` would end that of some losses."""
    try:
        if isinstance(callback, AttractionMonitor):
            callback.setup(recipe.quiet_trainer(), module, "fit")
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        return False
    return True


def paired_tests(scores: Mapping[str, Scores], reference: str) -> dict[str, Any]:
    """Return `{metric: {"p_one_sided", "p_two_sided"}}` of metalearned against `reference`; empty if one is missing.

    Paired by seed. The one-sided alternative is that the metalearned loss is better: higher, or lower for
    `LESS_IS_BETTER`.
    """
    if reference == "metalearned" or not {"metalearned", reference} <= scores.keys():
        return {}
    tests = {}
    for name, other in scores[reference].test.items():
        told = verdict(scores["metalearned"].test[name], other, less=name in LESS_IS_BETTER)
        tests[name] = {"p_one_sided": told and told.p, "p_two_sided": told and told.p_two_sided}
    return tests
