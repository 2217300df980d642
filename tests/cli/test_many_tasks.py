"""One search over several tasks by `tglo-train`."""

import csv
import json

import pytest
import pytorch_lightning as pl
from helpers.command import in_process
from hydra import compose, initialize_config_dir
from torch import nn

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.many import error_rate
from tglo_lightning.cli.recipe import Recipe
from tglo_lightning.losses.priors import Prior
from tglo_lightning.search import SearchResult

TINY = ("~task@tasks.wine", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "search.generations=2")
TINY += ("search.population=3", "search.finals.finalists=1", "search.finals.seeds=0", "search.finals.confirm=2")
TINY += ("tasks.digits.train_size=100", "tasks.digits.val_size=60", "tasks.digits_noisy.train_size=100")
TINY += ("tasks.digits_noisy.val_size=60", "evaluation.seeds=2", "hydra.run.dir=run", "logger=csv")


def test_one_loss_for_two_tasks_becomes_a_prior(tmp_path):
    printed = in_process(tmp_path, "train", "experiment=multi_task", *TINY)
    run = tmp_path / "run"
    result = SearchResult.load(run / "search.json")
    assert (result.monitor, result.candidates, result.original.fitness) == ("gain", 6, (0.0, 0.0))
    prior = Prior.load(run / "prior.json")
    assert prior == result.to_prior()
    for name in ("digits ", "digits_noisy", "acc", "prior.json"):
        assert name in printed
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["search/generation"] for row in rows if row["search/generation"]] == ["1", "2"]
    [tested] = [row for row in rows if row["test/digits_noisy/metalearned/acc_mean"]]
    assert float(tested["test/digits/original/nll_std"]) > 0
    assert f"kept: {result.kept}" in (run / "csv" / "search" / "outcome.txt").read_text()
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


def test_the_best_epoch_of_a_training_may_count(tmp_path):
    """At a learning rate at which a network gets worse again, it is better than the last one."""
    errors = {}
    for score in ("last", "best"):
        small = ("task.train_size=100", "trainer.max_epochs=6", "optimizer.lr=0.3", f"search.budget.score={score}")
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            recipe = Recipe(compose("train", overrides=[f"paths.output_dir={tmp_path}", *small]))
        pl.seed_everything(0, verbose=False)
        errors[score] = error_rate(recipe, nn.CrossEntropyLoss())
    assert 0 <= errors["best"] < errors["last"] <= 1
