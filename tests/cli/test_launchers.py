"""Hydra's launchers run the jobs of a sweep beside each other: each is a W&B run of its own, compared at the end."""

import json

import pytest
from helpers.command import TINY, tglo_train

LAUNCHERS = {
    "joblib": ("joblib", ("hydra.launcher.n_jobs=2",)),
    "submitit_local": ("submitit", ("hydra.launcher.timeout_min=10",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_are_runs_of_their_own_and_are_compared(tmp_path, launcher):
    plugin, options = LAUNCHERS[launcher]
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    # A search, for presets of two seeds may well be the same loss
    searching = ("search/space=minimal", "search.evaluator=sequential")
    sweep = ("-m", "seed=1,2", "callbacks=compare", *searching, f"hydra/launcher={launcher}")
    ran = tglo_train(tmp_path, *sweep, *options, *TINY)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    [folder] = (tmp_path / "multirun").glob("*/*")
    for job in ("0", "1"):
        result = json.loads((folder / job / "result.json").read_text())
        assert result["search"]["candidates"] == 3
        assert len(list((folder / job).rglob("*.wandb"))) == 1
        assert (folder / job / "search.jsonl").is_file()
    comparison = json.loads((folder / "comparison.json").read_text())
    assert comparison["runs"] == 2
    assert "metalearned (seed 2)" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["multirun"]
