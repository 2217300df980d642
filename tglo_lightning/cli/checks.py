"""Refuse a config that cannot run, in one line that names the key, before anything is trained."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


class ConfigError(ValueError):
    """A value of the config is out of range; the message starts with its key."""


Rule = tuple[str, Callable[[Any], bool]]


def _integer(low: int, high: float = float("inf")) -> Rule:
    wanted = f"an integer of at least {low}" if high == float("inf") else f"an integer from {low} to {high}"
    return wanted, lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def _number(wanted: str, accepts: Callable[[float], bool]) -> Rule:
    return f"a number {wanted}", lambda v: isinstance(v, Real) and not isinstance(v, bool) and accepts(float(v))


def _optional(rule: Rule) -> Rule:
    wanted, accepts = rule
    return f"null or {wanted}", lambda v: v is None or accepts(v)


_POSITIVE = _number("above 0", lambda v: 0 < v < float("inf"))
_SHARE = _number("from 0 to 1", lambda v: 0 <= v <= 1)

# Keys of the shipped configs. Whatever else a config builds checks its arguments itself: see `naming`.
RULES: dict[str, Rule] = {
    "seed": _integer(0, 2**32 - 1),
    "num_threads": _optional(_integer(1)),
    "monitor": ("the name of a metric", lambda v: isinstance(v, str) and bool(v)),
    "mode": ("max or min", lambda v: v in ("max", "min")),
    "evaluation.seeds": _integer(1),
    "evaluation.opponent": ("true or false", lambda v: isinstance(v, bool)),
    "evaluation.report": ("true or false", lambda v: isinstance(v, bool)),
    "optimizer.lr": _POSITIVE,
    "task.train_size": _integer(1),
    "task.val_size": _integer(1),
    "task.batch_size": _integer(1),
    "task.label_noise": _SHARE,
    "task.seed": _integer(0),
    "loss.label_smoothing": _SHARE,
    "loss.order": _optional(_integer(2)),
    "trainer.max_epochs": _integer(1),
    "search.generations": _integer(1),
    "search.population": _integer(2),
    "search.candidate_epochs": _optional(_integer(1)),
    "search.candidate_steps": _optional(_integer(1)),
    "search.finalists": _integer(1),
    "search.repeats": _integer(1),
    "search.order": _integer(2),
    "search.sigma": _POSITIVE,
    "search.candidate_timeout": _optional(_POSITIVE),
    "search.resume": ("auto or false", lambda v: v in ("auto", False)),
    "search.seed": _integer(0),
}


def check(cfg: DictConfig) -> None:
    """Check the values of `cfg` against `RULES`.

    Raises:
        ConfigError: a value is missing, cannot be resolved or is out of range; the message starts with its key.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]}: a value is needed, as in {missing[0]}=...")
    for key, (wanted, accepts) in RULES.items():
        node, _, name = key.rpartition(".")
        parent = OmegaConf.select(cfg, node) if node else cfg
        if not isinstance(parent, DictConfig) or name not in parent:
            continue
        try:
            value = parent[name]
        except OmegaConfBaseException as error:
            raise ConfigError(f"{key}: {_first_line(error)}") from error
        if not accepts(value):
            raise ConfigError(f"{key}: must be {wanted}, got {value!r}")


@contextmanager
def naming(cfg: DictConfig, key: str) -> Iterator[None]:
    """Turn the error of what `cfg[key]` builds into a `ConfigError` that names the key.

    Where the message names one of the node's own keys, that key is named: `task.seed`, not `task`.
    """
    try:
        yield
    except (InstantiationException, OmegaConfBaseException, TypeError, ValueError, OSError, ImportError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        message = _first_line(cause)
        node = cfg[key]
        keys = [str(name) for name in node] if isinstance(node, DictConfig) else []
        names = [name for name in keys if re.search(rf"\b{re.escape(name)}\b", message)]
        first = min(names, key=message.index, default=None)
        raise ConfigError(f"{key if first is None else f'{key}.{first}'}: {message}") from error


def _first_line(error: BaseException) -> str:
    first, *rest = (str(error).strip() or type(error).__name__).splitlines()
    # Hydra has the reason in the second
    return f"{first} {rest[0].strip()}" if rest and first.endswith(":") else first
