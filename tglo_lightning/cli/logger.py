"""The Weights & Biases logger, usable without an account and without a network."""

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import WandbLogger


def logged_in() -> bool:
    """Whether W&B finds credentials by itself: in the environment or stored by `wandb login`.

    Nothing is asked and nothing is sent.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    stored = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in stored):
        try:
            login = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if login and login[2]:
            return True
    return False


def wandb_logger(*, save_dir: str, project: str, name: str | None = None, **kwargs: Any) -> WandbLogger:
    """A `WandbLogger` that writes below `save_dir`: offline, unless the user is logged in.

    `WANDB_MODE`, where set, decides instead.

    Args:
        save_dir: directory of the run's files, made if it is not there.
        project: W&B project.
        name: name of the run; W&B makes one up if None.
        **kwargs: passed on to `WandbLogger`.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    kwargs.setdefault("settings", wandb.Settings(quiet=True))
    logger = WandbLogger(save_dir=save_dir, project=project, name=name, offline=mode != "online", mode=mode, **kwargs)
    # Lightning hands it on even where nobody gave it, and W&B warns of it at each run
    if kwargs.get("anonymous") is None:
        logger._wandb_init.pop("anonymous", None)
    return logger
