"""The Weights & Biases logger, usable without an account and without a network."""

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.loggers import WandbLogger

from tglo_lightning.untrusted import load_yaml

# Of a tag, and of a run's name, in W&B
TAG, NAME = 64, 128


def logged_in() -> bool:
    """Return whether there are W&B credentials: in the environment, or stored by `wandb login`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    try:
        return bool(netrc.netrc(Path(os.environ.get("NETRC") or "~/.netrc").expanduser()).authenticators(host))
    except (OSError, netrc.NetrcParseError):
        return False


def of_the_job(name: str | None) -> dict[str, Any]:
    """Return name, group and tags of the run from Hydra's job: no two jobs of a multirun have one name.

    The group is the directory of the multirun; tags are the experiment and the overrides.
    """
    if not HydraConfig.initialized():
        return {"name": name}
    hydra = HydraConfig.get()
    overrides = [override.lstrip("+~") for override in hydra.overrides.task]
    labels = {"name": name, "tags": [override[:TAG] for override in dict.fromkeys(overrides)]}
    if hydra.mode != RunMode.MULTIRUN:
        return labels
    # Hydra writes the command line of the multirun beside its jobs
    written = Path(hydra.sweep.dir) / "multirun.yaml"
    typed = load_yaml(written)["hydra"]["overrides"]["task"] if written.is_file() else []
    known = [override.lower() for override in typed]
    swept = [o for o in hydra.overrides.task if o.lower() not in known and not o.startswith("seed=")]
    named = "-".join(filter(None, (name, str(hydra.job.num), ",".join(swept))))
    return labels | {"name": named[:NAME], "group": "/".join(Path(hydra.sweep.dir).parts[-2:])}


def wandb_logger(*, save_dir: str, project: str, name: str | None = None, **kwargs: Any) -> WandbLogger:
    """Return a `WandbLogger` that writes below `save_dir`: as `WANDB_MODE` says, else offline unless logged in.

    Args:
        save_dir: directory of the run's files; made if it is not there.
        project: W&B project.
        name: name of the run, to which a job of a multirun adds its number and overrides; W&B makes one up if None.
        **kwargs: passed on to `WandbLogger`; `group` and `tags` come from Hydra where they are None.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    kwargs.setdefault("settings", wandb.Settings(quiet=True))
    labels = of_the_job(name)
    name = labels.pop("name")
    kwargs |= {key: value for key, value in labels.items() if kwargs.get(key) is None}
    logger = WandbLogger(save_dir=save_dir, project=project, name=name, offline=mode != "online", mode=mode, **kwargs)
    # Lightning hands it on even if nobody gave it, and W&B warns of it at each run
    if kwargs.get("anonymous") is None:
        logger._wandb_init.pop("anonymous", None)
    return logger
