"""Hydra's launchers run the jobs of a sweep beside each other: each is a W&B run of its own, compared at the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = (
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "task.train_size=100",
    "task.val_size=60",
    "search.generations=1",
    "search.population=3",
    "search.finalists=1",
    "search.repeats=1",
    "search.candidate_epochs=null",
    "search.candidate_steps=2",
    "search.evaluator=sequential",
    "evaluation.seeds=2",
)
LAUNCHERS = {
    "joblib": ("joblib", ("hydra.launcher.n_jobs=2",)),
    "submitit_local": ("submitit", ("hydra.launcher.timeout_min=10",)),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_are_runs_of_their_own_and_are_compared(tmp_path, launcher):
    plugin, options = LAUNCHERS[launcher]
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    sweep = ("-m", "seed=1,2", "callbacks=compare", f"hydra/launcher={launcher}", *options)
    command = [sys.executable, "-m", "tglo_lightning.cli.train", *sweep, *TINY]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"PYTHONPATH": str(ROOT), "NETRC": str(tmp_path / "no-login"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
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
