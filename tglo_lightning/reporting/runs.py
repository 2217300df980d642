"""The trainings behind `result.json` files: which loss, under which condition, from which seed.

Two runs have the same *condition* if their configs (`.hydra/config.yaml` beside `result.json`) agree in all but the
loss, the search, the seeds, and what has no part in a training. Runs without a config are taken to share one condition.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tglo_lightning.losses.published import published_name
from tglo_lightning.reporting.numbers import LOSSES
from tglo_lightning.search import Criterion
from tglo_lightning.untrusted import NUMBER, load_json, load_yaml

# What is read of `result.json`
METRIC = {"values": [(*NUMBER, None)]}
ENTRY = {"name": str, "criterion": (dict, None), "formula": str, "test": {...: METRIC}}
RESULT = {"losses": {...: ENTRY}}

# Parts of a config that choose a loss, or have no part in a training
NOT_A_CONDITION = frozenset(
    {"callbacks", "evaluation", "experiment", "hydra", "logger", "loss", "method", "mode", "monitor", "name"}
    | {"num_threads", "paths", "search"}
)
NOT_OF_A_TRAINING = frozenset(
    {"task.cache_dir", "trainer.accelerator", "trainer.default_root_dir", "trainer.devices"}
    | {f"trainer.{key}" for key in ("enable_model_summary", "enable_progress_bar", "log_every_n_steps")}
)


@dataclass(frozen=True)
class Loss:
    """What a loss is known by.

    `kind` is `"original"` for a loss that the config names, which has no criterion, else how it was found. `name` is
    that of its class, `label` a short one with the options that are set.
    """

    kind: str
    name: str
    label: str
    formula: str = ""
    criterion: Criterion | None = None


@dataclass
class Run:
    """One `result.json`.

    Attributes:
        seeds: every seed of the config; None without a config.
        settings: the rest of the config that makes a condition, by dotted keys.
        choices: groups of the config and what was chosen, such as `{"task": "mnist"}`.
        values: `{loss: {metric: one value a training}}`; None where one is not finite.
    """

    path: Path
    seeds: tuple[tuple[str, Any], ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    values: dict[Loss, dict[str, list[float | None]]] = field(default_factory=dict)

    @property
    def seed(self) -> Any:
        """The seed of the run itself, None if unknown."""
        return dict(self.seeds or ()).get("seed")


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Read the `result.json` files that are given, or lie anywhere below folders that are given, each once.

    Raises:
        ValueError: a path without a result, or a file that `tglo-train` did not write.
    """
    files: dict[Path, Path] = {}
    for given in map(Path, paths):
        found = [given] if given.is_file() else sorted(given.rglob("result.json"), key=lambda path: _natural(str(path)))
        if not found:
            raise ValueError(f"no result.json in {given}" if given.is_dir() else f"no such file or folder: {given}")
        files |= {path.resolve(): path for path in found}
    if not files:
        raise ValueError("no runs given")
    return [_read(path) for path in files.values()]


def _natural(text: str) -> list[tuple[float, str]]:
    """Orders 10 after 9."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def _read(path: Path) -> Run:
    config = _yaml(path.parent / ".hydra" / "config.yaml")
    hydra = _yaml(path.parent / ".hydra" / "hydra.yaml")
    run = Run(path)
    flat = dict(_flat(config))
    if config:
        run.seeds = tuple(sorted((k, v) for k, v in flat.items() if _is_seed(k) and _counts(k)))
    run.settings = {k: v for k, v in flat.items() if _counts(k) and not _is_seed(k) and k not in NOT_OF_A_TRAINING}
    choices = hydra.get("hydra", {}).get("runtime", {}).get("choices", {})
    run.choices = {k: str(v) for k, v in choices.items() if v is not None and _counts(k.partition("/")[0])}
    try:
        losses = load_json(path, RESULT)["losses"]
        for kind, entry in losses.items():
            loss = _loss(kind, entry, config.get("loss", {}))
            run.values[loss] = {name: metric["values"] for name, metric in entry["test"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a result of tglo-train: {type(error).__name__} {error}") from None
    if not run.values:
        raise ValueError(f"{path} is not a result of tglo-train: it has no losses")
    return run


def _yaml(path: Path) -> dict[str, Any]:
    values = load_yaml(path) if path.exists() else {}
    return values if isinstance(values, dict) else {}


def _loss(kind: str, entry: Mapping[str, Any], config: Mapping[str, Any]) -> Loss:
    criterion = None if entry["criterion"] is None else Criterion.from_dict(entry["criterion"])
    name, formula = entry["name"], entry["formula"]
    if kind != "original":
        known = LOSSES.get(kind, kind)
        label = known if name == "TaylorGLOLoss" or kind == "tuned_original" else f"{known}: {name}"
        return Loss(kind, name, label, formula, criterion)
    theta = config.get("theta")
    given = theta if isinstance(theta, str) else published_name(theta) if isinstance(theta, list) else None
    options = _flat({k: v for k, v in config.items() if k not in ("_target_", "theta", "order")})
    told = [f"{k}={v}" for k, v in options if v not in (None, 0, 0.0, False, "")]
    return Loss(kind, name, " ".join([given or name, *told]), formula, criterion)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tuple(value) if isinstance(value, list) else value


def _counts(key: str) -> bool:
    return key.partition(".")[0] not in NOT_A_CONDITION


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def conditions(runs: Sequence[Run], pool: Iterable[str] = ()) -> dict[str, list[Run]]:
    """The runs by condition, under a name that says in what the conditions differ; `""` if there is only one.

    Differences in the dotted keys, or groups of the config, in `pool` make no condition.

    Raises:
        ValueError: a key to pool that is in no config.
    """
    pool = set(pool)
    known = {k for run in runs for key in [*run.settings, *run.choices] for k in (key, key.partition(".")[0])}
    if pool - known:
        raise ValueError(f"no config has the key {min(pool - known)!r}, so there is nothing to pool")

    def kept(key: str) -> bool:
        return key not in pool and key.partition(".")[0] not in pool

    settings = [{k: v for k, v in run.settings.items() if kept(k)} for run in runs]
    # A change of group, say of the task, changes many keys; its name says more than they do
    choices = [{k: v for k, v in run.choices.items() if kept(k)} for run in runs]
    changed = _differing(choices)
    grouped: dict[str, list[Run]] = {}
    for run, own, chosen in zip(runs, settings, choices, strict=True):
        peers = [other for other, c in zip(settings, choices, strict=True) if c == chosen] if changed else settings
        parts = {k: chosen.get(k) for k in changed} | {k: own.get(k) for k in _differing(peers)}
        name = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in parts.items())
        grouped.setdefault(name, []).append(run)
    return {name: grouped[name] for name in sorted(grouped, key=_natural)} if len(grouped) > 1 else {"": [*runs]}


def _differing(maps: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for each in maps for key in each)
    return [key for key in keys if len({repr(each.get(key)) for each in maps}) > 1]


def labels(runs: Sequence[Run], *, pooled: bool = False) -> dict[Loss, str]:
    """A short name for every loss of the runs of one condition: no name twice, or one for each way to find losses."""
    owners: dict[Loss, Run] = {}
    for run in runs:
        for loss in run.values:
            owners.setdefault(loss, run)
    kinds = {**LOSSES, "original": ""}
    names = {loss: (kinds.get(loss.kind, loss.kind) if pooled else "") or loss.label for loss in owners}
    free = {loss: name for loss, name in names.items() if loss.kind == "original" or not pooled}
    for loss, name in free.items():
        twins = [other for other, same in free.items() if same == name]
        seeds = [owners[other].seed for other in twins]
        told = loss.kind != "original" and None not in seeds and len(set(seeds)) == len(seeds)
        mark = f"(seed {owners[loss].seed})" if told else f"#{hashlib.sha256(repr(loss).encode()).hexdigest()[:6]}"
        if len(twins) > 1:
            names[loss] = f"{name} {mark}"
    return names
