"""One search over several tasks by `tglo-train`."""

import json

import pytest
from helpers.command import in_process

from tglo_lightning.losses.priors import Prior
from tglo_lightning.search import SearchResult

TINY = ("~task@tasks.wine", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "search.generations=2")
TINY += ("search.population=3", "search.finals.finalists=1", "search.finals.seeds=0", "search.finals.confirm=2")
TINY += ("tasks.digits.train_size=100", "tasks.digits.val_size=60", "tasks.digits_noisy.train_size=100")
TINY += ("tasks.digits_noisy.val_size=60", "evaluation.seeds=2", "hydra.run.dir=run")


def test_one_loss_for_two_tasks_becomes_a_prior(tmp_path):
    printed = in_process(tmp_path, "train", "experiment=multi_task", *TINY)
    run = tmp_path / "run"
    result = SearchResult.load(run / "search.json")
    assert (result.monitor, result.candidates, result.original.fitness) == ("gain", 6, (0.0, 0.0))
    prior = Prior.load(run / "prior.json")
    assert prior == result.to_prior()
    for name in ("digits ", "digits_noisy", "acc", "prior.json"):
        assert name in printed
    # Started again it repeats nothing; another task makes it another search
    journal = (run / "search.jsonl").read_bytes()
    in_process(tmp_path, "train", "experiment=multi_task", *TINY)
    assert (run / "search.jsonl").read_bytes() == journal
    with pytest.raises(SystemExit, match="journal of another search"):
        in_process(tmp_path, "train", "experiment=multi_task", *TINY, "tasks.digits.seed=1")
    # A search on one of them starts there
    small = [word for word in TINY if not word.startswith(("~", "tasks", "hydra"))]
    single = ("task=digits", "task.train_size=100", "logger=none", "search=full", "search.evaluator=sequential")
    in_process(tmp_path, "train", *single, *small, "search.prior=run/prior.json", "hydra.run.dir=single")
    settings = json.loads((tmp_path / "single" / "search.json").read_text())["settings"]
    assert settings["space"]["centre"][: len(prior.t)] == pytest.approx(list(prior.t))
