"""The outcome of a search in words, and warnings about searches that cannot tell losses apart."""

from __future__ import annotations

import math
import re
import warnings

from tglo_lightning.search.result import Finalist, SearchResult
from tglo_lightning.wording import counted

# Difference of accuracies above which a network has memorised
SMALL_GAP = 0.05
# Share of training labels that a network agrees with which has been trained long enough to memorise
FITTED = 0.9
# Words in the names of metrics
LOWER_IS_BETTER = {"loss", "error", "err", "nll", "brier", "ece", "perplexity", "mse", "mae"}
HIGHER_IS_BETTER = {"acc", "accuracy", "f1", "auc", "auroc", "map", "miou", "iou", "dice", "precision", "recall"}


def summary(result: SearchResult) -> str:
    """Return what was kept, why, what it cost, and what a training with the original loss showed, in a few lines."""
    if result.curves is not None:
        return _race(result)
    look = diagnosis(result)
    return f"{_outcome(result)}\n  {look}" if look else _outcome(result)


def _outcome(result: SearchResult) -> str:
    original = result.original
    against = f"{original.name} {_figures(original)}"
    better = f"{result.monitor} ({'higher' if result.mode == 'max' else 'lower'} is better)"
    cost = f"{counted(result.trainings, 'training')}, {result.failed} failed, {result.seconds:.0f} s"
    if original.errors:
        return (
            "TaylorGLO kept the original loss: it could not be compared, for of its "
            f"{counted(len(original.fitness), 'training')} {len(original.errors)} failed ({original.errors[0]}); "
            f"{cost}."
        )
    if result.best is None:
        return f"TaylorGLO kept the original loss: no finalist could be trained. {against}; {cost}."
    test = "" if result.p_value is None else f", one-sided p = {result.p_value:.2g}, paired by seed"
    figures = f"{_figures(result.best)} against {against}{test}"
    if result.kept == "original":
        return f"TaylorGLO kept the original loss: none was confirmed to be better on {better}. Best {figures}; {cost}."
    beats = "beats the original" if result.p_value is not None else "is better than the original, without a test,"
    return f"TaylorGLO: the metalearned loss {beats} on {better}: {figures}; {cost}.\n  {result.best.formula}"


def diagnosis(result: SearchResult) -> str:
    """Return in words whether a training with the module's own loss left something to gain; empty if it is not known.

    A network that fits its training labels much better than the validation labels has memorised: wrong labels, or too
    few. One that does not leaves little to a loss that regularises.
    """
    if result.diagnosis is None:
        return ""
    figures = {name: f"{100 * value:.0f} %" for name, value in result.diagnosis.items()}
    gap = result.diagnosis["train_acc"] - result.diagnosis["val_acc"]
    verdict = "it memorises, so a loss that regularises may help"
    if gap < SMALL_GAP:
        verdict = "little to gain here"
        if result.diagnosis["train_acc"] < FITTED:
            verdict = "it does not memorise in so short a training; a learning rate may gain more than a loss"
    return (
        f"With {result.original.name} the network agrees with {figures['train_acc']} of the training labels and "
        f"{figures['val_acc']} of the validation labels, at a mean confidence of {figures['train_confidence']} and "
        f"{figures['val_confidence']} (expected calibration error on validation data {figures['val_ece']}): {verdict}."
    )


def outcome_metrics(result: SearchResult) -> dict[str, float]:
    """Return the finals as numbers for loggers; those that are not finite are left out."""
    metrics = {
        "kept_metalearned": float(result.kept == "metalearned"),
        "original_mean": result.original.mean,
        "original_std": result.original.std,
        "gain": result.gain,
        "p_value": math.nan if result.p_value is None else result.p_value,
    }
    if result.best is not None:
        metrics |= {"best_mean": result.best.mean, "best_std": result.best.std}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def warn_of_direction(monitor: str, mode: str) -> None:
    """Warn if the metric's name speaks against ``mode``: such a search finds the worst loss, and believes in it."""
    words = set(re.split("[^a-z0-9]+", monitor.lower()))
    better = "min" if words & LOWER_IS_BETTER else "max" if words & HIGHER_IS_BETTER else mode
    if better != mode:
        warnings.warn(
            f"`monitor={monitor!r}` sounds like a metric to be searched with mode={better!r}; this search has "
            f"mode={mode!r}.",
            stacklevel=3,
        )


def warn_of_seeds(result: SearchResult, cure: str) -> None:
    """Warn of finals in which no seed made a difference; ``cure`` says what to do."""
    if not result.seeds_matter:
        warnings.warn(
            f"The winner and the original loss had the same {result.monitor} from each of "
            f"{len(result.original.fitness)} seeds: nothing in this training depends on the seed, and the comparison "
            f"counts as a single training. {cure}",
            stacklevel=3,
        )


def _figures(finalist: Finalist) -> str:
    n = len(finalist.fitness)
    return f"{finalist.mean:.4g}{f' +- {finalist.std:.2g}' if n > 1 else ''} (n={n})"


def _race(result: SearchResult) -> str:
    """What won a race, and what that says."""
    curves, best = result.curves, result.best
    assert curves is not None
    assert best is not None
    winner = curves.names(result.original.name)[curves.winner]
    own = next(entry for entry in result.history if entry.criterion.is_original)
    against = "" if own is result.history[curves.winner] else f"; {result.original.name} came to {own.fitness:.4g}"
    text = (
        f"TaylorGLO: of {len(curves.criteria)} networks that of {winner} is kept, with {result.monitor} "
        f"{result.history[curves.winner].fitness:.4g} after {curves.kept_at} of {curves.checks[-1]} {curves.unit}"
        f"{against}; {result.seconds:.0f} s. One network each, chosen by validation"
    )
    if len(best.fitness) < 2:
        return f"{text}: no proof that its loss is better."
    p_value = "" if result.p_value is None else f", one-sided p = {result.p_value:.2g}"
    return (
        f"{text}. From {len(best.fitness)} fresh seeds its loss has {best.mean:.4g} against {result.original.mean:.4g}"
        f"{p_value}."
    )
