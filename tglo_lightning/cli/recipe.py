"""Fresh parts of a training, built from a config as often as they are needed."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from torch import nn

from tglo_lightning.arguments import choice, integer, optional
from tglo_lightning.callbacks import TaylorGLO
from tglo_lightning.data import Task
from tglo_lightning.losses.class_priors import class_priors
from tglo_lightning.models import Classifier, Normalize
from tglo_lightning.module.slot import LossSlots


class ConfigError(ValueError):
    """A config that cannot run; the message begins with the key."""


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Turn an error of what the config builds from `key` into a `ConfigError` that begins with the key."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        raise ConfigError(f"{key}: {' '.join(str(cause).split()) or type(cause).__name__}") from error


def prepare(cfg: DictConfig) -> Path:
    """Set the number of threads, silence Lightning and make the output directory, which is returned.

    Raises:
        ConfigError: `num_threads` or `paths.output_dir` cannot be used.
    """
    quiet_lightning()
    with naming("num_threads"):
        if optional(integer, "num_threads", cfg.num_threads, 1):
            torch.set_num_threads(cfg.num_threads)
    folder = Path(cfg.paths.output_dir)
    with naming("paths.output_dir"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def quiet_lightning() -> None:
    """Silence what Lightning says about every one of the many small trainings."""
    for name in ("pytorch_lightning", "lightning.pytorch"):  # with both installed the second one speaks for the first
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*smaller than the logging interval.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)


class Recipe:
    """Builds modules, trainers and callbacks from one config; all share one data module.

    Args:
        cfg: a composed config of `conf/train.yaml`.

    Raises:
        ConfigError: something cannot be built, found by building everything once, before any training.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self._priors: torch.Tensor | None = None
        with naming("seed"):
            integer("seed", cfg.seed, 0, 2**32 - 1)
        with naming("evaluation.seeds"):
            integer("seeds", cfg.evaluation.seeds, 1)
        with naming("evaluation.score"):
            choice("score", cfg.evaluation.score, ("last", "best"))
        # Before data are read, which may take its time
        self.search()
        with naming("task"):
            self.datamodule = instantiate(cfg.task)
            if isinstance(self.datamodule, Task):
                self.datamodule.prepare_data()
                self.datamodule.setup()
        module = self.module()
        with naming("optimizer"):
            instantiate(cfg.optimizer, _convert_="all")(module.parameters())
        with naming("scheduler"):
            module.configure_optimizers()
        self.callbacks()
        self._validate(module)

    def _validate(self, module: Classifier) -> None:
        """Validate one batch, to see that the parts fit and that the monitored metric is there."""
        trainer = self.quiet_trainer(limit_val_batches=1)
        with naming("task, arch, loss"):
            [metrics] = trainer.validate(module, datamodule=self.datamodule, verbose=False)
        monitor = self.cfg.monitor
        if monitor not in list(metrics):
            raise ConfigError(f"monitor: {monitor!r} is not logged in validation; logged: {', '.join(metrics)}")

    def criterion(self) -> nn.Module:
        """Return the original loss."""
        with naming("loss"):
            # theta must reach the loss as a plain list, not as a node of the config
            return instantiate(self.cfg.loss, **self._of_the_data(), _convert_="all")

    def _of_the_data(self) -> dict[str, Any]:
        """Return the arguments of the loss that the config leaves to the data, by null."""
        left = [name for name in ("num_classes", "priors") if name in self.cfg.loss and self.cfg.loss[name] is None]
        if "priors" in left and self._priors is None:
            labels = torch.cat([batch[1] for batch in self.datamodule.train_dataloader()])
            self._priors = class_priors(labels, self.datamodule.num_classes)
        known = {"num_classes": self.datamodule.num_classes, "priors": self._priors}
        return {name: known[name] for name in left}

    def module(self, criterion: nn.Module | None = None) -> Classifier:
        """Return an untrained module with a loss, by default the original one; weights from the global generator."""
        data = self.datamodule
        with naming("arch"):
            net = instantiate(self.cfg.arch)(input_shape=data.input_shape, num_classes=data.num_classes)
        aux = getattr(net, "aux", 0)
        if getattr(data, "mean", None) is not None:
            # In the network, not in the data: inputs stay pixels in [0, 1]
            net = nn.Sequential(Normalize(data.mean, data.std), net)
        parts = {}
        for key in ("optimizer", "scheduler"):
            with naming(key):
                parts[key] = instantiate(self.cfg[key], _convert_="all")
        losses = [self.criterion() for _ in range(aux)]
        return Classifier(net, criterion or self.criterion(), data.num_classes, aux_criteria=losses, **parts)

    def callbacks(self, *, checkpoints: bool = True) -> list[pl.Callback]:
        """Return the callbacks of the config, with or without those that write checkpoints."""
        with naming("callbacks"):
            found = [instantiate(node) for node in self.cfg.callbacks.values() if node]
        return [c for c in found if checkpoints or not isinstance(c, pl.callbacks.Checkpoint)]

    def best_checkpoint(self, folder: Path) -> pl.callbacks.ModelCheckpoint | None:
        """Return a callback that keeps the best epoch, ``None`` if the last one counts."""
        if self.cfg.evaluation.score == "last":
            return None
        options = {"monitor": self.cfg.monitor, "mode": self.cfg.mode, "save_weights_only": True}
        return pl.callbacks.ModelCheckpoint(folder, **options)

    def search(self, **overrides: Any) -> TaylorGLO | None:
        """Return the search, None with `search=none`.

        Its candidates are fresh modules, so that seeds cover their weights. `overrides` replace keys of the config.
        """
        if "_target_" not in self.cfg.search:
            return None
        with naming("search"):
            build: Callable[..., TaylorGLO] = instantiate(self.cfg.search)
            return build(**({} if "init" in self.cfg.search else {"init": self.module}), **overrides)

    def slots(self) -> LossSlots:
        """Return where a module keeps the losses that are searched for."""
        paths = OmegaConf.to_container(self.cfg.search, resolve=True).get("loss", "criterion")  # type: ignore[union-attr]
        return LossSlots(paths)

    def loggers(self) -> list[Logger]:
        """Return the loggers: one, several with `logger=many`, none with `logger=none`."""
        nodes = [self.cfg.logger] if "_target_" in self.cfg.logger else self.cfg.logger.values()
        with naming("logger"):
            return [instantiate(node) for node in nodes]

    def trainer(self, **kwargs: Any) -> pl.Trainer:
        """Return a fresh trainer; `kwargs` replace arguments of the config."""
        with naming("trainer"):
            # a partial, because a config cannot hold the objects in kwargs
            return instantiate(self.cfg.trainer, _partial_=True)(**kwargs)

    def quiet_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Return a fresh trainer that does not log, write checkpoints or print; without callbacks by default."""
        silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        return self.trainer(**({"callbacks": []} | dict.fromkeys(silent, False) | kwargs))
