"""Trained networks, from the checkpoints that `tglo-train` wrote."""

import pickle
from collections.abc import Iterator
from inspect import isfunction
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from tglo_lightning.callbacks.samples import random_batches
from tglo_lightning.cli.checks import ConfigError
from tglo_lightning.cli.recipe import Recipe
from tglo_lightning.evaluation import restore_loss
from tglo_lightning.models import Classifier

__all__ = ["images", "of_run", "trained"]

# What a run's own config knows of its network, unless the command line says otherwise
DESCRIBED = ("task", "arch", "loss", "optimizer", "scheduler")
# What a stored config may call
TRUSTED = (
    "tglo_lightning.data.",
    "tglo_lightning.models.",
    "tglo_lightning.losses.",
    "tglo_lightning.cli.given.",
    "torch.nn.",
    "torch.optim.",
)


def checkpoint(path: str, key: str) -> Path:
    """The checkpoint at `path`: a file, or the one in the directory of a run.

    Raises:
        ConfigError: there is none; names `key`.
    """
    given = Path(path)
    found = given / "checkpoints" / "last.ckpt" if given.is_dir() else given
    if not found.is_file():
        raise ConfigError(f"{key}: there is no checkpoint {found}")
    return found


def of_run(cfg: DictConfig, ckpt: Path) -> DictConfig:
    """`cfg` with task, network and loss of the run that wrote `ckpt`, where Hydra left its config beside it.

    What the command line chooses, as in `arch=cnn` or `experiment=...`, stays; what it changes, as in
    `task.val_size=100`, is changed in what the run had.
    """
    config = next((p / ".hydra" / "config.yaml" for p in list(ckpt.parents)[:3] if (p / ".hydra").is_dir()), None)
    if not HydraConfig.initialized():
        return cfg
    given = [override.lstrip("+~") for override in HydraConfig.get().overrides.task]
    chosen = {override.split("=")[0] for override in given}
    if config is None or "experiment" in chosen:
        return cfg
    run = OmegaConf.load(config)
    assert isinstance(run, DictConfig)
    merged = cfg.copy()
    with open_dict(merged):
        for key in DESCRIBED:
            if key in chosen or key not in run:
                continue
            _check_targets(run[key], key, config, chosen)
            changes = OmegaConf.from_dotlist([change for change in given if change.startswith(f"{key}.")])
            merged[key] = OmegaConf.merge(run[key], changes[key]) if key in changes else run[key]
            # What an interpolation makes of it, too
            _check_targets(merged[key], key, config, chosen, resolve=True)
    return merged


def _check_targets(node: Any, key: str, config: Path, chosen: set[str], resolve: bool = False) -> None:
    """Refuse to call, because a file says so, what is not plainly part of a network, its loss, optimizer or data.

    What the command line has ``chosen`` is not asked for by the file.

    Raises:
        ConfigError: names the key, and how to ask for the target oneself.
    """
    values = OmegaConf.to_container(node, resolve=resolve) if OmegaConf.is_config(node) else node
    for name, target in _targets(values, key):
        if name not in chosen and not _harmless(target):
            raise ConfigError(
                f"{name}: {config} asks for {target!r}, which is taken from the command line only: if you trust it, "
                f"pass {name}={target}"
            )


def _targets(values: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        if "_target_" in values:
            yield f"{key}._target_", values["_target_"]
        for name, value in values.items():
            yield from _targets(value, f"{key}.{name}")
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from _targets(value, f"{key}.{number}")


def _harmless(target: Any) -> bool:
    """Whether a dotted path leads to a class or function that is at home where it may be."""
    if not isinstance(target, str) or not target.startswith(TRUSTED):
        return False
    try:
        found = get_object(target)
    except Exception:
        return False
    home = f"{getattr(found, '__module__', '')}."
    # A path can lead out of its package, by what a module has imported
    return (isinstance(found, type) or isfunction(found)) and home.startswith(TRUSTED)


def trained(recipe: Recipe, ckpt: Path, key: str) -> Classifier:
    """The network of a checkpoint, in evaluation mode, with the loss it was trained with.

    Raises:
        ConfigError: the file is no checkpoint, or is one of another network; names `key`.
    """
    try:
        state: dict[str, Any] = torch.load(ckpt, map_location="cpu", weights_only=True)["state_dict"]
    except (KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{key}: {ckpt} is no checkpoint that can be read with weights_only=True") from error
    module = recipe.module()
    try:
        restore_loss(module, state)
        module.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"{key}: {ckpt} does not fit the network of this config, choose it by arch=... or experiment=... "
            f"({' '.join(lines[:2]) or type(error).__name__}); a module of one's own is attacked by "
            "tglo_lightning.attacks.evaluate_robustness in Python"
        ) from error
    return module.eval()


def images(recipe: Recipe, split: str, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Images and labels: random ones of a split, or all.

    Raises:
        ConfigError: there is no such split.
    """
    loaders = {"test": recipe.datamodule.test_dataloader, "val": recipe.datamodule.val_dataloader}
    if split not in loaders:
        raise ConfigError(f"split: must be one of {', '.join(loaders)}, got {split!r}")
    recipe.datamodule.prepare_data()
    recipe.datamodule.setup("test")
    loader = loaders[split]()
    if samples is None:
        batches = list(loader)
    else:
        batches, count = [], 0
        for batch, _ in random_batches(loader, samples, seed):
            batches.append(batch)
            count += len(batch[0])
            if count >= samples:
                break
    x, labels = (torch.cat(parts) for parts in zip(*((batch[0], batch[1]) for batch in batches), strict=True))
    return x[:samples], labels[:samples]
