"""Refuse a config that cannot run, in one line that names the key, before anything is trained."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tglo_lightning.arguments import choice, flag, integer, number, optional
from tglo_lightning.cli.command_line import unwritable
from tglo_lightning.search.loop import MODES


class ConfigError(ValueError):
    """A value of the config is out of range; the message starts with its key."""


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"`{name}` must be the name of a metric, got {value!r}.")
    return value


# What no part of the config that is built checks by itself, or not before data are read; for the rest see `naming`
RULES: dict[str, Callable[[str, Any], Any]] = {
    "seed": partial(integer, least=0, most=2**32 - 1),
    "num_threads": partial(optional, integer, least=1),
    "monitor": _name,
    "mode": partial(choice, among=MODES),
    "evaluation.seeds": partial(integer, least=1),
    "evaluation.opponent": flag,
    "evaluation.report": flag,
    "optimizer.lr": partial(number, above=0),
    "loss.label_smoothing": partial(number, least=0, most=1),
    "trainer.max_epochs": partial(integer, least=1),
}


def check(cfg: DictConfig) -> None:
    """Check the values of `cfg` against `RULES`.

    Raises:
        ConfigError: a value is missing, cannot be resolved or is out of range; the message starts with its key.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]}: a value is needed, as in {missing[0]}=...")
    for key, rule in RULES.items():
        node, _, name = key.rpartition(".")
        parent = OmegaConf.select(cfg, node) if node else cfg
        if not isinstance(parent, DictConfig) or name not in parent:
            continue
        try:
            rule(name, parent[name])
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise ConfigError(f"{key}: {_first_line(error).removeprefix(f'`{name}` ')}") from error


def writable(cfg: DictConfig, key: str) -> None:
    """Check that the file or directory that `cfg` names by `key` can be written.

    Raises:
        ConfigError: it cannot.
    """
    path = OmegaConf.select(cfg, key)
    if reason := unwritable(Path(str(path))):
        raise ConfigError(f"{key}: {path} cannot be written: {reason}")


# What says that a part of a config cannot be built
REFUSALS = (
    InstantiationException,
    MisconfigurationException,
    OmegaConfBaseException,
    TypeError,
    ValueError,
    OSError,
    ImportError,
)


@contextmanager
def naming(cfg: DictConfig, key: str) -> Iterator[None]:
    """Turn the error of what `cfg[key]` builds into a `ConfigError` that names the key.

    Where the message names one of the node's own keys, that key is named: `task.seed`, not `task`.
    """
    try:
        yield
    except REFUSALS as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        message = _first_line(cause)
        node = cfg[key]
        keys = [str(name) for name in node] if isinstance(node, DictConfig) else []
        names = [name for name in keys if re.search(rf"\b{re.escape(name)}\b", message)]
        first = min(names, key=message.index, default=None)
        if first is not None:
            key, message = f"{key}.{first}", message.removeprefix(f"`{first}` ")
        raise ConfigError(f"{key}: {message}") from error


def _first_line(error: BaseException) -> str:
    first, *rest = (str(error).strip() or type(error).__name__).splitlines()
    # Hydra has the reason in the second
    return f"{first} {rest[0].strip()}" if rest and first.endswith(":") else first
