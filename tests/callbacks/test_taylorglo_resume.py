"""By default a search is found again by what is searched: the same goes on, another one stands beside it."""

import json
import os
import shutil

import pytest
import pytorch_lightning as pl
import torch
from faults import victim
from faults.victim import Victim, journals
from helpers.modules import TINY, classifier, quiet_trainer

from tglo_lightning import TaylorGLO
from tglo_lightning.search import Budget, Finals, Journal, SearchResult, TaylorSpace

SETTINGS = {
    "space": "taylorglo",
    "generations": 1,
    "population": 2,
    "finals": Finals(1, 0, 1),
    "budget": 1,
    "evaluator": "sequential",
    "report": False,
}


def fit(directory, *, max_epochs=1, checkpoints=False, **kwargs):
    """The callback after a fit of the victim."""
    pl.seed_everything(0, verbose=False)
    search = TaylorGLO(monitor="val/margin", **(SETTINGS | kwargs))
    trainer = quiet_trainer(pl, directory, callbacks=[search], max_epochs=max_epochs, enable_checkpointing=checkpoints)
    trainer.fit(victim.Victim(), *victim.data())
    return search


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The directory of a finished search."""
    place = tmp_path_factory.mktemp("first")
    fit(place)
    return place


@pytest.fixture
def done(first, tmp_path):
    """A copy of it."""
    return shutil.copytree(first, tmp_path / "done")


def without_time(result):
    values = result.to_dict()
    return {k: v for k, v in values.items() if k not in ("seconds", "settings")}


def test_the_result_lies_beside_the_journal(tmp_path):
    search = fit(tmp_path)
    [journal] = journals(tmp_path)
    assert search.directory == journal.parent
    text = (search.directory / "search.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["finished"] is True
    assert SearchResult.load(search.directory / "search.json").to_dict() == search.result.to_dict()
    assert Journal.read(journal)[1][1]["criterion"] == search.result.history[0].criterion.to_dict()


def test_a_search_is_called_finished_only_where_its_result_says_so(done, caplog):
    [journal] = journals(done)
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:3]))
    journal.with_suffix(".json").unlink()
    with caplog.at_level("INFO", logger="tglo_lightning"):
        search = fit(done)
    assert "goes on from" in caplog.text
    assert "this search is finished" not in caplog.text
    assert SearchResult.load(journal.with_suffix(".json")).to_dict() == search.result.to_dict()


def test_the_same_search_is_found_again(tmp_path, caplog):
    first = fit(tmp_path)
    with caplog.at_level("INFO", logger="tglo_lightning"):
        again = fit(tmp_path)
    assert "this search is finished, its trainings are in" in caplog.text
    assert "pass resume=False or another seed" in caplog.text
    assert without_time(again.result) == without_time(first.result)
    assert len(journals(tmp_path)) == 1
    # what the search has cost in all
    assert again.result.seconds >= first.result.seconds * 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"population": 3},
        {"strategy": "random"},
        {"space": TaylorSpace(constraint=None)},
        {"space": TaylorSpace(constraint=lambda theta: True)},
        {"init": "reset"},
        {"init": Victim},
        {"mode": "min"},
        {"evaluator": "vectorized"},
        {"budget": Budget(epochs=1, timeout=100)},
        {"budget": Budget(epochs=2, min_fitness_after=(1, 0.0))},
    ],
    ids=lambda change: "-".join(change),
)
def test_other_settings_are_another_search(done, change):
    fit(done, **change)
    assert len(journals(done)) == 2


@pytest.mark.parametrize(
    "change",
    [
        "weights",
        "rate",
        "smoothing",
        "layer",
        "dropout",
        "source",
        "schedule",
        "data",
        "validation",
        "precision",
        "clip",
    ],
)
def test_another_training_is_another_search(done, change, monkeypatch):
    net, step = torch.nn.Sequential, torch.optim.SGD
    if change == "weights":
        monkeypatch.setattr(pl, "seed_everything", lambda *args, **kwargs: torch.manual_seed(1))
    elif change == "rate":
        monkeypatch.setattr(Victim, "configure_optimizers", lambda self: step(self.parameters(), 0.2, 0.9))
    elif change == "schedule":

        def scheduled(self):
            optimizer = step(self.parameters(), 0.1, 0.9)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]

        monkeypatch.setattr(Victim, "configure_optimizers", scheduled)
    elif change == "smoothing":
        monkeypatch.setattr(torch.nn, "CrossEntropyLoss", lambda: smoothed(label_smoothing=0.1))
        smoothed = torch.nn.modules.loss.CrossEntropyLoss
    elif change in ("layer", "dropout"):
        extra = torch.nn.Tanh() if change == "layer" else torch.nn.Dropout(0.1)
        monkeypatch.setattr(torch.nn, "Sequential", lambda *layers: net(*layers, extra))
    elif change == "source":

        class Other(Victim):
            def training_step(self, batch, batch_idx):
                return 2 * super().training_step(batch, batch_idx)

        Other.__name__, Other.__qualname__, Other.__module__ = Victim.__name__, Victim.__qualname__, Victim.__module__
        monkeypatch.setattr(victim, "Victim", Other)
    elif change in ("data", "validation"):
        train, val = victim.data()
        loader = train if change == "data" else val
        loader.dataset.tensors = (loader.dataset.tensors[0] + 0.01, loader.dataset.tensors[1])
        monkeypatch.setattr(victim, "data", lambda: (train, val))
    else:
        options = {"precision": {"precision": "bf16-mixed"}, "clip": {"gradient_clip_val": 1.0}}[change]
        trainer = pl.Trainer
        monkeypatch.setattr(pl, "Trainer", lambda **kwargs: trainer(**kwargs, **options))
    fit(done)
    assert len(journals(done)) == 2


def test_what_changes_no_candidate_changes_no_search(done):
    fit(done, max_epochs=2, checkpoints=True)
    assert len(journals(done)) == 1


def test_an_unfinished_neighbour_is_mentioned(done, caplog, monkeypatch):
    """Who forgot to seed the weights is told why the search does not go on."""
    [journal] = journals(done)
    journal.with_suffix(".json").unlink()
    monkeypatch.setattr(pl, "seed_everything", lambda *args, **kwargs: torch.manual_seed(1))
    with caplog.at_level("INFO", logger="tglo_lightning"):
        fit(done)
    assert f"{journal} is an unfinished search, but another one: weights is" in caplog.text
    assert "seed_everything(0)" in caplog.text


def test_another_version_is_refused(done, monkeypatch):
    [journal] = journals(done)
    before = journal.read_bytes()
    monkeypatch.setattr("tglo_lightning.callbacks.recording.version", lambda name: "0.0" if name == "cma" else "1.0")
    with pytest.raises(ValueError, match=r"another search: .*versions.cma is '.*' there and '0.0' here"):
        fit(done)
    assert journal.read_bytes() == before


def test_resume_off_searches_anew_beside(tmp_path):
    first = fit(tmp_path)
    before = (first.directory / "search.jsonl").read_bytes()
    places = [fit(tmp_path, resume=False).directory for _ in range(2)]
    assert [place.name for place in places] == [f"{first.directory.name}-2", f"{first.directory.name}-3"]
    assert (first.directory / "search.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match="exists, and `resume` is off"):
        fit(tmp_path, journal=places[0] / "search.jsonl", resume=False)
    # and goes on where it is asked to
    assert fit(tmp_path, journal=places[0] / "search.jsonl").directory == places[0]


def test_a_place_that_cannot_be_written(tmp_path):
    """By default a warning, for a journal that was asked for an error."""
    (tmp_path / "tglo").write_text("")
    with pytest.warns(UserWarning, match="runs without a journal: should it be killed, it starts anew"):
        search = fit(tmp_path)
    assert search.directory is None
    assert search.result.candidates == 2
    with pytest.raises(ValueError, match="cannot be written"):
        fit(tmp_path, journal=tmp_path / "tglo" / "search.jsonl")


def test_a_named_journal_and_its_result(tmp_path):
    search = fit(tmp_path, journal=str(tmp_path / "here" / "one.jsonl"), report=True)
    attraction, *rest = sorted(os.listdir(tmp_path / "here"))
    assert attraction == "one-attraction-original.npz"
    assert rest == ["one-fit.json", "one-report.html", "one.json", "one.jsonl"]
    assert search.directory == tmp_path / "here"
    assert journals(tmp_path) == []


def test_nothing_is_written_in_a_trial(tmp_path):
    search = TaylorGLO(**TINY)
    quiet_trainer(pl, tmp_path, callbacks=[search], fast_dev_run=True).fit(classifier(pl)(), *victim.data())
    assert search.directory is None
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("argument", "value"), [("journal", "a.json"), ("resume", "yes"), ("resume", None), ("resume", 0)]
)
def test_wrong_arguments(argument, value):
    with pytest.raises((TypeError, ValueError), match=f"`{argument}`"):
        TaylorGLO(**{argument: value})


def test_failures_are_remembered_with_a_way_out(tmp_path, monkeypatch):
    def fails(self, batch, batch_idx):
        if type(self.criterion).__name__ == "TaylorGLOLoss":
            raise OSError("busy")
        return self.criterion(self.net(batch[0]), batch[1])

    monkeypatch.setattr(Victim, "training_step", fails)
    for _ in range(2):
        with (
            pytest.warns(UserWarning, match="drawing it again"),
            pytest.raises(RuntimeError, match=r"(?s)crashed: OSError: busy.*pass resume=False"),
        ):
            fit(tmp_path, evaluator="trainer")
    [journal] = journals(tmp_path)
    # The settings, and 2 candidates drawn 4 times
    assert len(Journal.read(journal)[1]) == 9
    shutil.rmtree(journal.parent)
