"""The journal of a search in a real fit; tests/faults kills it at any moment."""

import math

import pytest
import torch
from helpers.data import loaders
from helpers.modules import classifier

from tglo_lightning import TaylorGLO
from tglo_lightning.search import Finals, TaylorSpace

SETTINGS = {"generations": 2, "population": 4, "budget": 2, "finals": Finals(2, 1, 2), "report": False}


def fit(api, tmp_path, journal, evaluator="trainer", lr=0.1, **kwargs):
    torch.manual_seed(0)
    search = TaylorGLO(**(SETTINGS | kwargs), evaluator=evaluator, journal=journal)
    trainer = api.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[search], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(classifier(api)(lr=lr), **loaders())
    return without_time(search.result.to_dict())


def without_time(value):
    if isinstance(value, dict):
        return {key: without_time(entry) for key, entry in value.items() if key != "seconds"}
    return [without_time(entry) for entry in value] if isinstance(value, list) else value


def test_goes_on_with_the_evaluator_it_began_with(api, tmp_path, caplog):
    first = fit(api, tmp_path, tmp_path / "journal.jsonl", "sequential")
    with caplog.at_level("INFO", logger="tglo_lightning"):
        again = fit(api, tmp_path, tmp_path / "journal.jsonl", "auto")
    assert again == first
    assert "this search is finished, its trainings are in" in caplog.text


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The journal of a search."""
    import pytorch_lightning as api

    folder = tmp_path_factory.mktemp("first")
    fit(api, folder, folder / "journal.jsonl")
    return folder / "journal.jsonl"


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"population": 5}, {"evaluator": "vectorized"}, {"seed": 1}])
def test_journal_of_another_search_is_refused(api, tmp_path, path, change):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"is the journal of another search: .* there and .* here"):
        fit(api, tmp_path, path, **change)
    assert path.read_bytes() == before


def test_interrupted_search_says_how_to_go_on(api, tmp_path, caplog):
    calls = []

    def constraint(theta):
        calls.append(theta)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return math.isfinite(theta[0])

    with pytest.raises((KeyboardInterrupt, SystemExit)), caplog.at_level("INFO", logger="tglo_lightning"):
        fit(api, tmp_path, tmp_path / "journal.jsonl", space=TaylorSpace(constraint=constraint))
    assert "interrupted. Start the same fit again to go on from" in caplog.text


@pytest.mark.parametrize("journal", [3, b"x", ["a"]])
def test_journal_is_a_path(journal):
    with pytest.raises(TypeError, match="`journal` must be the path of a file"):
        TaylorGLO(journal=journal)
