"""The commands as a user runs them, from another directory and with no account."""

import io
import logging
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tglo_lightning.cli import commands

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
    "++search.evaluator=sequential",
    "evaluation.seeds=2",
    "evaluation.report=false",
)


def in_process(cwd: Path, command: str, *arguments: str) -> str:
    """Run ``train``, ``attack`` or ``landscape`` in ``cwd``, in this process; return what it printed.

    To start a process and import all takes longer than most of what is tested.
    """
    root, shown = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(cwd / "no-login"))
        patch.setattr(sys, "argv", [f"tglo-{command}", *arguments])
        patch.syspath_prepend(str(cwd))
        patch.chdir(cwd)
        try:
            getattr(commands, command)()
        finally:
            # Hydra logs into the directory of the run
            root.handlers[:], root.level = handlers, level
    return shown.getvalue()


def tglo_train(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `tglo-train` left in ``cwd`` and said, in a process of its own; modules in ``cwd`` can be imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)]), "NETRC": str(cwd / "no-login")}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", "from tglo_lightning.cli.commands import train; train()", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
