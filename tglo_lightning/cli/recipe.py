"""Fresh parts of a training, built from a config as often as they are needed."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from torch import nn

from tglo_lightning.callbacks import TaylorGLO
from tglo_lightning.cli.checks import ConfigError, check, naming, writable
from tglo_lightning.data import Task
from tglo_lightning.models import Classifier, Normalize
from tglo_lightning.module.slot import LossSlots


class Recipe:
    """Builds modules, trainers and callbacks from one config; all share one data module.

    Args:
        cfg: a composed config of `conf/train.yaml`.

    Raises:
        ConfigError: a value is out of range, or something cannot be built; found here, before any training.
    """

    def __init__(self, cfg: DictConfig) -> None:
        check(cfg)
        self.cfg = cfg
        # Before data are read, which may take its time
        self.search()
        if cfg.search.get("journal") is not None:
            writable(cfg, "search.journal")
        self.criterion()
        with naming(cfg, "task"):
            self.datamodule = instantiate(cfg.task)
            if isinstance(self.datamodule, Task):
                # Here, where what is wrong with the data can be told by the task's keys
                self.datamodule.prepare_data()
                self.datamodule.setup()
        module = self.module()
        with naming(cfg, "optimizer"):
            optimizer = module.optimizer(module.parameters())
        with naming(cfg, "scheduler"):
            if module.scheduler is not None:
                module.scheduler(optimizer)
        self._validate(module)

    def _validate(self, module: Classifier) -> None:
        """Validate one batch, to see that the parts fit and that the monitored metric is there."""
        self.callbacks()
        trainer = self.quiet_trainer(limit_val_batches=1)
        [metrics] = trainer.validate(module, datamodule=self.datamodule, verbose=False)
        if self.cfg.monitor not in metrics:
            raise ConfigError(
                f"monitor: {self.cfg.monitor!r} is not logged in validation; logged: {', '.join(metrics)}"
            )

    def criterion(self) -> nn.Module:
        """The original loss."""
        with naming(self.cfg, "loss"):
            # theta must reach the loss as a plain list, not as a node of the config
            return instantiate(self.cfg.loss, _convert_="all")

    def module(self, criterion: nn.Module | None = None) -> Classifier:
        """An untrained module, its weights drawn from the global generator; with the original loss by default."""
        with naming(self.cfg, "arch"):
            net = instantiate(self.cfg.arch)(
                input_shape=self.datamodule.input_shape, num_classes=self.datamodule.num_classes
            )
        aux = getattr(net, "aux", 0)
        if getattr(self.datamodule, "mean", None) is not None:
            # In the network, not in the data: inputs stay pixels in [0, 1]
            net = nn.Sequential(Normalize(self.datamodule.mean, self.datamodule.std), net)
        parts = {}
        for key in ("optimizer", "scheduler"):
            with naming(self.cfg, key):
                parts[key] = instantiate(self.cfg[key], _convert_="all")
        return Classifier(
            net,
            self.criterion() if criterion is None else criterion,
            self.datamodule.num_classes,
            aux_criteria=[self.criterion() for _ in range(aux)],
            **parts,
        )

    def callbacks(self, *, checkpoints: bool = True) -> list[pl.Callback]:
        """The callbacks of the config's group, without those that write checkpoints if so asked."""
        with naming(self.cfg, "callbacks"):
            found = [instantiate(node) for node in self.cfg.callbacks.values() if node]
        return [c for c in found if checkpoints or not isinstance(c, pl.callbacks.Checkpoint)]

    def search(self, **overrides: Any) -> TaylorGLO | None:
        """The search, None with `search=none`. Its candidates are fresh modules, so that seeds cover their weights.

        `overrides` go before the config.
        """
        if "_target_" not in self.cfg.search:
            return None
        with naming(self.cfg, "search"):
            build: Callable[..., TaylorGLO] = instantiate(self.cfg.search)
            return build(**({} if "init" in self.cfg.search else {"init": self.module}), **overrides)

    def slots(self) -> LossSlots:
        """Where a module keeps the losses that are searched for."""
        paths = OmegaConf.to_container(self.cfg.search, resolve=True).get("loss", "criterion")  # type: ignore[union-attr]
        return LossSlots(paths)

    def logger(self) -> Logger | None:
        """The logger, None with `logger=none`."""
        if "_target_" not in self.cfg.logger:
            return None
        with naming(self.cfg, "logger"):
            return instantiate(self.cfg.logger)

    def trainer(self, **kwargs: Any) -> pl.Trainer:
        """A fresh trainer; `kwargs` go before the config."""
        with naming(self.cfg, "trainer"):
            # a partial, because a config cannot hold the objects in kwargs
            return instantiate(self.cfg.trainer, _partial_=True)(**kwargs)

    def quiet_trainer(self, **kwargs: Any) -> pl.Trainer:
        """A fresh trainer that neither logs, nor writes checkpoints, nor prints; with no callbacks by default."""
        silent = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        return self.trainer(**({"callbacks": []} | kwargs | silent))
