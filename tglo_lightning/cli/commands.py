"""The commands that are Hydra apps: `tglo-train`, `tglo-attack` and `tglo-landscape`.

What a command runs is imported when it runs, so that `--help` and shell completion are quick.
"""

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import tglo_lightning

__all__ = ["CONFIG_DIR", "attack", "landscape", "train"]

_PACKAGE = Path(tglo_lightning.__file__).parent
# In a wheel the configs lie in the package, in a checkout beside it
CONFIG_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
# Flags with which Hydra prints and runs nothing
_PRINTING = {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion"}


def _command(name: str) -> Callable[[], None]:
    """Return the Hydra app over `conf/NAME.yaml` that calls `run(cfg)` of `tglo_lightning.cli.NAME`.

    What `run` returns is the value that a sweeper optimises. An error of the config, of a journal or of a search ends
    the process with one line.
    """

    @hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=name)
    def task(cfg: DictConfig) -> Any:
        from tglo_lightning.cli.recipe import ConfigError
        from tglo_lightning.search import SearchError
        from tglo_lightning.search.journal import JournalError

        try:
            return import_module(f"tglo_lightning.cli.{name}").run(cfg)
        except (ConfigError, JournalError, SearchError, OmegaConfBaseException) as error:
            raise SystemExit(f"tglo-{name}: {' '.join(str(error).split())}") from error

    def main() -> None:
        if _PRINTING.intersection(sys.argv) and hasattr(signal, "SIGPIPE"):
            # `tglo-train --help | head` ends like any other command whose reader has gone
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        task()

    return main


train = _command("train")
attack = _command("attack")
landscape = _command("landscape")
