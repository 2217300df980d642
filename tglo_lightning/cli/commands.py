"""The commands that are Hydra apps: `tglo-train`, `tglo-attack` and `tglo-landscape`.

What a command does is imported when it does it, so that `--help` and shell completion are quick.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from tglo_lightning.cli.command_line import CONFIG_DIR, command

__all__ = ["CONFIG_DIR", "attack", "landscape", "train"]


@command("train")
def train(cfg: DictConfig) -> float:
    """Run one config. Returns the optimised metric to a sweeper.

    A refused config or journal, or a search without one valid candidate, ends the process.
    """
    from tglo_lightning.cli.checks import ConfigError
    from tglo_lightning.cli.train import run
    from tglo_lightning.search import SearchError
    from tglo_lightning.search.journal import JournalError

    try:
        return run(cfg)
    except (ConfigError, JournalError, SearchError) as error:
        _leave_nothing()
        raise SystemExit(f"tglo-train: {error}") from error


@command("attack")
def attack(cfg: DictConfig) -> float:
    """Attack one network. Returns its worst-case accuracy at the largest epsilon; a refused config ends the process."""
    from tglo_lightning.cli.attack import run
    from tglo_lightning.cli.checks import ConfigError

    try:
        return run(cfg)
    except (ConfigError, ImportError) as error:
        _leave_nothing()
        raise SystemExit(f"tglo-attack: {' '.join(str(error).split())}") from error


@command("landscape")
def landscape(cfg: DictConfig) -> None:
    """Measure the networks of one config; a refused config ends the process."""
    from tglo_lightning.cli.checks import ConfigError
    from tglo_lightning.cli.landscape import run

    try:
        run(cfg)
    except ConfigError as error:
        _leave_nothing()
        raise SystemExit(f"tglo-landscape: {' '.join(str(error).split())}") from error


def _leave_nothing() -> None:
    """Remove the directory of a run that was refused, if there is nothing in it but what Hydra wrote at its start."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    config, log = folder / str(hydra.output_subdir), folder / f"{hydra.job.name}.log"
    if hydra.mode != RunMode.RUN or not folder.is_dir() or not set(folder.iterdir()) <= {config, log}:
        return
    with suppress(OSError):
        shutil.rmtree(config)
        log.unlink(missing_ok=True)
        if folder == Path.cwd():
            return
        folder.rmdir()
        day, outputs = list(folder.parents)[:2]
        if outputs.name == "outputs":
            # Where this was the only run
            day.rmdir()
            outputs.rmdir()
