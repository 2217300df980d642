"""The outcome of a search in words and numbers."""

import math
import warnings
from dataclasses import replace

import pytest

from tglo_lightning.search import Candidate, Criterion, Evaluation, Finalist, SearchResult
from tglo_lightning.search.summary import outcome_metrics, summary, warn_of_direction, warn_of_seeds

BEST = Finalist(Criterion.of("smoothing", [0.2]), "finalist 1", (0.9, 0.92), 0.91, 0)
OWN = Finalist(Criterion.original(), "CrossEntropyLoss", (0.8, 0.81))
RESULT = SearchResult(
    "metalearned", "val/acc", "max", BEST, OWN, (BEST,),
    tuple(Candidate.of(0, i, BEST.criterion, Evaluation(f)) for i, f in enumerate([0.9, math.nan])), 0.01, seconds=5,
)  # fmt: skip
LOST = replace(OWN, fitness=(0.8, math.nan), errors=("crashed: killed",))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            RESULT,
            "TaylorGLO: the metalearned loss beats the original on val/acc (higher is better): 0.91 +- 0.014 (n=2) "
            "against CrossEntropyLoss 0.805 +- 0.0071 (n=2), one-sided p = 0.01, paired by seed; 8 trainings, 1 "
            "failed, 5 s.\n  y log(h), labels smoothed by 0.2",
        ),
        (replace(RESULT, p_value=None), "is better than the original, without a test, on val/acc"),
        (replace(RESULT, kept="original"), "kept the original loss: none was confirmed to be better on val/acc"),
        (replace(RESULT, kept="original", best=None), "no finalist could be trained. CrossEntropyLoss 0.805"),
        (
            replace(RESULT, kept="original", original=LOST),
            "could not be compared, for of its 2 trainings 1 failed (crashed: killed); 8 trainings",
        ),
    ],
)
def test_in_words(result, words):
    assert words in summary(result)


def test_in_numbers():
    numbers = outcome_metrics(RESULT)
    assert (numbers["kept_metalearned"], numbers["best_mean"], numbers["p_value"]) == (1.0, 0.91, 0.01)
    assert numbers["gain"] == pytest.approx(0.105)
    assert set(outcome_metrics(replace(RESULT, best=None, p_value=None))) == {
        "kept_metalearned", "original_mean", "original_std",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("monitor", "mode", "warns"),
    [
        ("val/acc", "max", False),
        ("val/acc", "min", True),
        ("val_loss", "max", True),
        ("val_loss", "min", False),
        ("ValAccuracy", "min", False),
        ("score", "min", False),
        ("top5-error", "max", True),
    ],
)
def test_a_metric_whose_name_speaks_against_its_direction(monitor, mode, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_direction(monitor, mode)
    assert bool(caught) is warns


def test_seeds_that_make_no_difference():
    flat = replace(RESULT, best=replace(BEST, fitness=(0.9, 0.9)), original=replace(OWN, fitness=(0.8, 0.8)))
    with pytest.warns(UserWarning, match="had the same val/acc from each of 2 seeds.*Shuffle"):
        warn_of_seeds(flat, "Shuffle the data.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_seeds(RESULT, "")
