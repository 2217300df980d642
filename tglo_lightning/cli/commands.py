"""The commands that are Hydra apps: `tglo-train`, `tglo-attack` and `tglo-landscape`.

What a command runs is imported when it runs, so that `--help` and shell completion are quick.
"""

import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import tglo_lightning
from tglo_lightning.cli.shell import end_with_reader

__all__ = ["CONFIG_DIR", "attack", "landscape", "train"]

_PACKAGE = Path(tglo_lightning.__file__).parent
# In a wheel the configs lie in the package, in a checkout beside it
CONFIG_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
# Flags with which Hydra prints and runs nothing
_PRINTING = {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion"}
# Groups that other Hydra apps have, and plugins that are not installed
_HINTS = {
    "data": "data sets are the group task, as in task=digits",
    "datamodule": "data sets are the group task, as in task=digits",
    "model": "networks are the group arch, as in arch=cnn, and LightningModules of your own the group module",
    "hparams_search": "hparams_search=optuna needs: pip install 'tglo-lightning[optuna]'",
}


def _command(name: str) -> Callable[[], None]:
    """Return the Hydra app over `conf/NAME.yaml` that calls `run(cfg)` of `tglo_lightning.cli.NAME`.

    What `run` returns is the value that a sweeper optimises. An error of the config, of a journal or of a search ends
    the process with one line.
    """

    @hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=name)
    def task(cfg: DictConfig) -> Any:
        if name == "train":
            _find_packages()  # in a launcher's process, too
        from tglo_lightning.cli.recipe import ConfigError
        from tglo_lightning.search import SearchError
        from tglo_lightning.search.journal import JournalError

        try:
            return import_module(f"tglo_lightning.cli.{name}").run(cfg)
        except (ConfigError, JournalError, SearchError, OmegaConfBaseException) as error:
            raise SystemExit(f"tglo-{name}: {' '.join(str(error).split())}") from error

    def main() -> None:
        if _PRINTING.intersection(sys.argv):
            end_with_reader()
        if name == "train":
            _find_packages()
        try:
            task()
        except SystemExit as end:
            if end.code:
                _hint(sys.argv[1:])
            raise

    return main


def _find_packages() -> None:
    """Let a config name what lies in the current directory; what is installed goes first."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _hint(arguments: list[str]) -> None:
    """After an error: say what to type in place of a group that this command calls otherwise."""
    for name in dict.fromkeys(re.split("[.=@]", word)[0] for word in arguments):
        if name in _HINTS and not (name == "hparams_search" and find_spec("optuna")):
            print(f"{name}: {_HINTS[name]}", file=sys.stderr)


train = _command("train")
attack = _command("attack")
landscape = _command("landscape")
