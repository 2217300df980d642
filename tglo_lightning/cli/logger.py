"""The Weights & Biases logger, usable without an account and without a network."""

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import WandbLogger


def logged_in() -> bool:
    """Return whether there are W&B credentials: in the environment, or stored by `wandb login`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    try:
        return bool(netrc.netrc(Path(os.environ.get("NETRC") or "~/.netrc").expanduser()).authenticators(host))
    except (OSError, netrc.NetrcParseError):
        return False


def wandb_logger(*, save_dir: str, project: str, name: str | None = None, **kwargs: Any) -> WandbLogger:
    """Return a `WandbLogger` that writes below `save_dir`: as `WANDB_MODE` says, else offline unless logged in.

    Args:
        save_dir: directory of the run's files; made if it is not there.
        project: W&B project.
        name: name of the run; W&B makes one up if None.
        **kwargs: passed on to `WandbLogger`.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    kwargs.setdefault("settings", wandb.Settings(quiet=True))
    logger = WandbLogger(save_dir=save_dir, project=project, name=name, offline=mode != "online", mode=mode, **kwargs)
    # Lightning hands it on even if nobody gave it, and W&B warns of it at each run
    if kwargs.get("anonymous") is None:
        logger._wandb_init.pop("anonymous", None)
    return logger
