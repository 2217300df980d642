"""Configs with wrong keys and values: they run, or are rejected with the name of the key, before any training."""

import random

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import ConfigError, Recipe

VALUES = (None, True, -1, 0, 0.5, float("nan"), "x", "", [], ["x"], [1, 2], {"a": 1})
# Of the run, not of the training; and numbers that only ask for time or memory
LEFT_OUT = ("paths", "hydra", "name", "logger", "callbacks", "num_threads")


def composed(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", overrides=["task.train_size=200", "logger=none", *overrides])


def leaves(node, prefix=""):
    for key in node:
        name = f"{prefix}{key}"
        child = OmegaConf.select(node, str(key)) if not OmegaConf.is_missing(node, key) else None
        if isinstance(child, DictConfig):
            yield from leaves(child, f"{name}.")
        else:
            yield name


def cases():
    cfg = composed("paths.output_dir=.", "paths.root=.")
    names = [name for name in leaves(cfg) if not name.startswith(LEFT_OUT)]
    assert len(names) > 40
    return [(name, value) for name in names for value in VALUES]


def check(tmp_path, name, value):
    cfg = composed(f"paths.output_dir={tmp_path}")
    with open_dict(cfg):
        OmegaConf.update(cfg, name, value, merge=False, force_add=True)
    try:
        Recipe(cfg)
    except ConfigError as error:
        # The group of the key; or the key or the value, for what another key makes of it
        known = (name.partition(".")[0] + ":", name.split(".")[-1].strip("_"), repr(value))
        if not any(part in str(error) for part in known):
            return f"{name}={value!r} is rejected as {str(error)[:200]}"
    except Exception as error:
        return f"{name}={value!r}: {type(error).__name__}: {str(error)[:200]}"
    return None


def test_values(tmp_path):
    chosen = random.Random(0).sample(cases(), 20)
    assert [wrong for name, value in chosen if (wrong := check(tmp_path, name, value))] == []


@pytest.mark.faults
def test_values_at_length(tmp_path):
    wrong = [found for name, value in cases() if (found := check(tmp_path, name, value))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("key", ["serch", "search.space.orders", "task.noise", "trainer.epochs"])
def test_unknown_keys(tmp_path, key):
    with pytest.raises(ConfigCompositionException, match=key.split(".")[-1]):
        composed(f"{key}=1")
    if "." in key:
        with pytest.raises(ConfigError, match=f"^{key.split('.')[0]}.*{key.split('.')[-1]}"):
            Recipe(composed(f"paths.output_dir={tmp_path}", f"+{key}=1"))
