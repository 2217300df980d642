"""What a search leaves behind, as files and as numbers."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.searches import Scored, run, sphere
from torch import nn

from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import Criterion, Evaluation, Finalist, SearchResult


@pytest.fixture(scope="module")
def result():
    def score(criterion, seed, trained):
        lost = not criterion.is_original and criterion.losses[0].theta[3] > 1
        return Evaluation(math.nan, "crashed", 1.0, "boom") if lost else sphere(criterion, seed)

    return run(Scored(score))


def test_a_file_and_back(result, tmp_path):
    assert 0 < result.failed < result.candidates
    result.save(tmp_path / "search.json")
    again = SearchResult.load(tmp_path / "search.json")
    assert again.to_dict() == result.to_dict()
    assert (again.best, again.original, again.criterion) == (result.best, result.original, result.criterion)
    assert all(math.isnan(c.fitness) for c in again.history if c.status != "ok")
    # the journal beside it is that of a finished search
    assert SearchResult.load(tmp_path / "search.jsonl").finished
    assert [path.name for path in tmp_path.iterdir()] == ["search.json"]
    for text in ("", "[]", "{}", '{"kept": 1}', "nan"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="holds no result of a search"):
            SearchResult.load(tmp_path / "other.json")


def test_it_fits_into_a_checkpoint(result, tmp_path):
    torch.save(result.to_dict(), tmp_path / "state.pt")
    assert SearchResult.from_dict(torch.load(tmp_path / "state.pt", weights_only=True)).best == result.best


@pytest.mark.parametrize("weight", [2.0, [1.0, 2.0], [[1.0, 2.0]]])
def test_weights_of_any_shape_travel(result, weight):
    options = [{"weight": weight, "pos_weight": weight}]
    settings = {**result.settings, "original_options": options}
    again = SearchResult.from_dict(replace(result, settings=settings).to_dict())
    assert again.settings["original_options"] == options
    settings["original_options"] = [{"pos_weight": "much"}]
    with pytest.raises(ValueError, match="pos_weight"):
        SearchResult.from_dict(replace(result, settings=settings).to_dict())


def test_it_builds_its_loss(result):
    loss = result.loss(nn.CrossEntropyLoss(ignore_index=2))
    assert (type(loss), loss.theta.tolist(), loss.ignore_index) == (
        TaylorGLOLoss, list(result.best.criterion.losses[0].theta), 2,
    )  # fmt: skip
    kept = replace(result, kept="original")
    own = nn.CrossEntropyLoss()
    assert kept.loss(own) is own
    assert isinstance(kept.loss(), nn.CrossEntropyLoss)


def test_figures_of_a_finalist():
    finalist = Finalist(Criterion.original(), "CrossEntropyLoss", (0.5, 0.7))
    assert (finalist.mean, finalist.std) == (pytest.approx(0.6), pytest.approx(0.02**0.5))
    lost = replace(finalist, fitness=(0.5, math.nan))
    assert math.isnan(lost.mean)
    assert math.isnan(lost.std)
    assert (replace(finalist, fitness=(0.5,)).std, finalist.formula) == (0.0, "CrossEntropyLoss")
    assert replace(finalist, criterion=Criterion.original(2)).formula == "CrossEntropyLoss, learning rate x 2"


def test_the_gain_has_the_sign_of_better(result):
    best, own = replace(result.best, fitness=(1.0,)), replace(result.original, fitness=(3.0,))
    assert replace(result, best=best, original=own).gain == -2
    assert replace(result, best=best, original=own, mode="min").gain == 2
    assert math.isnan(replace(result, best=None).gain)


def test_seeds_that_make_no_difference(result):
    flat = replace(result, best=replace(result.best, fitness=(1, 1)), original=replace(result.original, fitness=(2, 2)))
    assert [result.seeds_matter, flat.seeds_matter] == [True, False]
    assert replace(flat, original=replace(flat.original, fitness=(2,))).seeds_matter
