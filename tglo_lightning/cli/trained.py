"""Trained networks, from the checkpoints and configs that `tglo-train` wrote.

A run's directory may come from somebody else. Its checkpoint is loaded with `weights_only=True`. Its config may name
what this package's own configs name, one by one, and what the user trusts on the command line, `trust=[...]`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from tglo_lightning.callbacks.samples import random_batches
from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import ConfigError, Recipe
from tglo_lightning.models import Classifier
from tglo_lightning.module import restore_loss
from tglo_lightning.untrusted import check_shape, load_checkpoint, load_yaml

__all__ = ["images", "known_targets", "load", "of_run"]

# What is taken from a run's own config, unless the command line chooses it
DESCRIBED = ("task", "arch", "module", "loss")


def load(cfg: DictConfig, path: str, key: str) -> tuple[Recipe, Classifier]:
    """Return the network of a checkpoint, in evaluation mode with the loss it was trained with, and its recipe.

    Args:
        cfg: a config of `tglo-attack` or `tglo-landscape`.
        path: a checkpoint, or the directory of a run.
        key: of the config, for messages.

    Raises:
        ConfigError: there is no checkpoint, or it does not fit the config.
    """
    ckpt = Path(path) / "checkpoints" / "last.ckpt" if Path(path).is_dir() else Path(path)
    if not ckpt.is_file():
        raise ConfigError(f"{key}: there is no checkpoint {ckpt}")
    with isolate_rng():
        recipe = Recipe(of_run(cfg, ckpt))
        module = recipe.module()
    try:
        state = load_checkpoint(ckpt)["state_dict"]
        check_shape(state, {...: Tensor})
    except (KeyError, OSError, ValueError) as error:
        raise ConfigError(f"{key}: {ckpt} is no checkpoint that can be read with weights_only=True: {error}") from error
    try:
        restore_loss(module, state)
        module.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{key}: {ckpt} does not fit the network of this config, choose it by arch=... or experiment=... "
            f"({' '.join(str(error).split())[:200]}); a module of your own is attacked in Python, by "
            "tglo_lightning.attacks.evaluate_robustness"
        ) from error
    return recipe, module.eval()


def of_run(cfg: DictConfig, ckpt: Path) -> DictConfig:
    """Return `cfg` with task, network and loss of the run that wrote `ckpt`, if Hydra left its config beside it.

    Groups that the command line chooses, as in `arch=cnn` or `experiment=...`, are kept. Single keys, as in
    `task.val_size=100`, are changed in what the run had.

    Raises:
        ConfigError: the run's config cannot be read, or names something that neither this package nor `trust` does.
    """
    config = next((f for p in list(ckpt.parents)[:3] if (f := p / ".hydra" / "config.yaml").exists()), None)
    if config is None or not HydraConfig.initialized():
        return cfg
    given = [override.lstrip("+~") for override in HydraConfig.get().overrides.task]
    chosen = {override.split("=")[0] for override in given}
    if "experiment" in chosen:
        return cfg
    try:
        run = load_yaml(config)
    except ValueError as error:
        raise ConfigError(f"ckpt: {error}") from error
    known = {*known_targets(), *cfg.trust}
    merged = cfg.copy()
    with open_dict(merged):
        for key in DESCRIBED:
            if key in chosen or not isinstance(run, dict) or key not in run:
                continue
            _check(run[key], key, config, known)
            changes = OmegaConf.from_dotlist([change for change in given if change.startswith(f"{key}.")])
            merged[key] = OmegaConf.merge(run[key], changes[key]) if key in changes else run[key]
    return merged


def known_targets() -> set[str]:
    """Return every `_target_` in the package's own configs of tasks, networks and losses."""
    files = (file for group in (*DESCRIBED, "augment") for file in (CONFIG_DIR / group).glob("*.yaml"))
    return {str(value) for file in files for name, value in _entries(load_yaml(file)) if name.endswith("._target_")}


def _check(node: Any, key: str, config: Path, known: set[str]) -> None:
    """Reject a stored config that calls something unknown, or that could still change when it is resolved.

    Raises:
        ConfigError: names the key, and how to allow it.
    """
    for name, value in _entries(node, key):
        if name.endswith("._target_") and not (isinstance(value, str) and value in known):
            raise ConfigError(
                f"{name}: {config} names {value!r}, which is not in this package's configs; if you trust it, pass "
                f"'trust=[{value}]'"
            )
        if isinstance(value, str) and "${" in value:
            raise ConfigError(
                f"{name}: {config} has the interpolation {value!r}, which is not followed; choose {key}=... instead"
            )


def _entries(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over every value below a node, and the node itself, by dotted names."""
    yield key, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for name, value in items:
        yield from _entries(value, f"{key}.{name}")


def images(recipe: Recipe, split: str, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return images and labels of a split: `samples` random ones, or all.

    Raises:
        ConfigError: there is no such split.
    """
    if split not in ("test", "val"):
        raise ConfigError(f"split: must be test or val, got {split!r}")
    recipe.datamodule.setup("test")
    loader = getattr(recipe.datamodule, f"{split}_dataloader")()
    batches = list(loader) if samples is None else [batch for batch, _ in random_batches(loader, samples, seed)]
    x, labels = (torch.cat(parts) for parts in zip(*((batch[0], batch[1]) for batch in batches), strict=True))
    return x[:samples], labels[:samples]
