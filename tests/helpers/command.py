"""`tglo-train` as a user runs it: in a process of its own, from another directory, with no account."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A run of a second: a small search, then two trainings of each loss. `++`, for a method may have no search
TINY = (
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "task.train_size=100",
    "task.val_size=60",
    "++search.generations=1",
    "++search.population=3",
    "++search.budget.epochs=null",
    "++search.budget.steps=2",
    "++search.finals.finalists=1",
    "++search.finals.seeds=0",
    "++search.finals.confirm=1",
    "evaluation.seeds=2",
    "evaluation.report=false",
)


def tglo_train(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command left in ``cwd`` and said; modules that lie in ``cwd`` can be imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)]), "NETRC": str(cwd / "no-login")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", "from tglo_lightning.cli.commands import train; train()", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
