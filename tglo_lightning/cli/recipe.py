"""Fresh parts of a training, built from a config as often as they are needed."""

import inspect
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from torch import nn

from tglo_lightning.arguments import choice, integer, optional
from tglo_lightning.callbacks import AttractionMonitor, TaylorGLO
from tglo_lightning.callbacks.race import check_race
from tglo_lightning.cli.first_batch import FirstBatch, SearchCheck
from tglo_lightning.data import Task
from tglo_lightning.losses.class_priors import class_priors
from tglo_lightning.models import Classifier, Normalize
from tglo_lightning.module import LossSlots
from tglo_lightning.module.slot import loss_names
from tglo_lightning.search import Race

# Arguments of the search but those that are keys of their own
ARGUMENTS = inspect.signature(TaylorGLO).parameters.keys() - {"monitor", "mode", "seed"}
# Where code is that is not the user's
LIBRARIES = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"))


class ConfigError(ValueError):
    """A config that cannot run; the message begins with the key."""


@contextmanager
def naming(key: str, advice: str = "") -> Iterator[None]:
    """Turn an error of what the config builds from `key` into a `ConfigError`: the key, the error, and some advice.

    What an error says to type for an argument of the search, as in `loss=`, becomes the key, `search.loss=`.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        message = " ".join(str(cause).split()) or type(cause).__name__
        if "search" in key:
            message = re.sub(f"`(?=({'|'.join(ARGUMENTS)})=)", "`search.", message)
        target = re.match(r"Error loading '(\w+)", message)  # what `_target_` names
        if target and find_spec(target[1]) is None:
            message += "; packages of your own are found in PYTHONPATH, by tglo-train in the current directory too"
        raise ConfigError(f"{key}: {message}{_place(error)}{advice}") from error


def _place(error: BaseException) -> str:
    """Return file and line of the user's code that failed, in brackets; empty if none did."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [
        f" ({Path(frame.filename).name}:{frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", *LIBRARIES)) and "-packages" not in frame.filename
    ]
    return lines[-1] if lines else ""


def build(node: Any, **kwargs: Any) -> Any:
    """Instantiate a node of the config; lists and dicts in it become plain ones."""
    return instantiate(node, _convert_="all", **kwargs)


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


# conf/loss/cross_entropy.yaml: with it a module of the user's keeps its own loss
DEFAULT_LOSS = {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0}


class Recipe:
    """Builds modules, trainers and callbacks from one config; all share one data module.

    Args:
        cfg: a composed config of `conf/train.yaml`.

    Attributes:
        datamodule: what `task` builds; None with `task=null`, for a module with loaders of its own.

    Raises:
        ConfigError: something cannot be built, found by building everything once, before any training.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self._classes: dict[str, Any] = {}
        self._first: FirstBatch | None = None
        self._slots: LossSlots | None = None
        with naming("seed"):
            integer("seed", cfg.seed, 0, 2**32 - 1)
        with naming("evaluation.seeds"):
            integer("seeds", cfg.evaluation.seeds, 1)
        with naming("evaluation.score"):
            choice("score", cfg.evaluation.score, ("last", "best"))
        # Before data are read, which may take its time
        self.search()
        with naming("task"):
            self.datamodule = build(cfg.get("task"))
            if isinstance(self.datamodule, Task):
                self.datamodule.prepare_data()
                self.datamodule.setup()
        module = self.module()
        if cfg.module is None:
            with naming("optimizer"):
                build(cfg.optimizer)(module.parameters())
            with naming("scheduler"):
                module.configure_optimizers()
        search = self.search()
        races = search is not None and isinstance(search.settings.strategy, Race)
        for each in self.callbacks():
            with naming("callbacks"):
                if search is None and isinstance(each, AttractionMonitor):  # beside a search it waits for what is found
                    each.setup(self.quiet_trainer(), module, "fit")
                if races:
                    check_race([each])
        with self._training_with("task, arch, loss" if cfg.module is None else "task, module"):
            trainer = self.quiet_trainer(limit_val_batches=1, limit_test_batches=1)
            metrics = logged(trainer.validate(module, datamodule=self.datamodule, verbose=False))
            if cfg.module is not None and not logged(trainer.test(module, datamodule=self.datamodule, verbose=False)):
                raise ValueError("nothing is logged in test, so there is nothing to compare losses by")
        if cfg.monitor not in metrics:
            raise ConfigError(f"monitor: {cfg.monitor!r} is not logged in validation; logged: {', '.join(metrics)}")
        if search is not None and (cfg.module is not None or cfg.search.loss or races):
            with naming("module, search" if cfg.module is not None else "search"):
                trainer = self.quiet_trainer(callbacks=[SearchCheck(search)], min_epochs=None, min_steps=None)
                # What was validated has metrics that a fit cannot go on with
                trainer.fit(self.module(), datamodule=self.datamodule)

    def _training_with(self, key: str) -> AbstractContextManager[None]:
        """Name an error of a module in training or evaluation by `key`, and say where unfitting data come from."""
        advice = (
            f"; its data are those of {type(self.datamodule).__name__}, a task of this package (digits by default). "
            "Type task=NAME for data of yours, task=null for loaders of the module"
        )
        return naming(key, advice if self.cfg.module is not None and isinstance(self.datamodule, Task) else "")

    def module(self) -> Any:
        """Return an untrained module with the original loss; its weights come from the global generator."""
        cfg, data = self.cfg, self.datamodule
        if cfg.module is not None:
            with naming("module"):
                module = build(cfg.module)
            if cfg.loss != DEFAULT_LOSS:
                for slot in self.slots():
                    slot.set(module, self._criterion())
            return module
        with naming("arch"):
            net = build(cfg.arch)(input_shape=data.input_shape, num_classes=data.num_classes)
        aux = getattr(net, "aux", 0)
        if getattr(data, "mean", None) is not None:
            # In the network, not in the data: inputs stay pixels in [0, 1]
            net = nn.Sequential(Normalize(data.mean, data.std), net)
        parts = {}
        for key in ("optimizer", "scheduler"):
            with naming(key):
                parts[key] = build(cfg[key])
        losses = [self._criterion() for _ in range(aux)]
        return Classifier(net, self._criterion(), data.num_classes, aux_criteria=losses, **parts)

    def _criterion(self) -> nn.Module:
        """Return the loss of the config; what it leaves to the data by null comes from there."""
        node = self.cfg.loss
        with naming("loss"):
            known = {name: self._of_classes(name) for name in ("num_classes", "priors") if node.get(name, 0) is None}
            return build(node, **known)

    def _of_classes(self, name: str) -> Any:
        """Return the `num_classes` or the `priors` of the data."""
        if name not in self._classes:
            if name == "num_classes" and hasattr(self.datamodule, name):
                value: Any = self.datamodule.num_classes
            elif isinstance(self.datamodule, Task):
                labels = torch.cat([batch[1] for batch in self.datamodule.train_dataloader()])
                value = class_priors(labels, self.datamodule.num_classes)
            else:
                value = getattr(self._first_batch(), name)
            self._classes[name] = value
        return self._classes[name]

    def _first_batch(self) -> FirstBatch:
        """Return what a training step of the user's module shows of its loss."""
        if self._first is None:
            with naming("module"):
                module = build(self.cfg.module)
            first = FirstBatch(module)
            with self._training_with("task, module"):
                trainer = self.quiet_trainer(
                    callbacks=[first], max_epochs=1, limit_train_batches=1, limit_val_batches=0
                )
                trainer.fit(module, datamodule=self.datamodule)
            self._first = first
        return self._first

    def slots(self) -> LossSlots:
        """Return where a module has the losses that are searched for, found by a training step if nothing names them.

        Raises:
            ConfigError: `training_step` calls no loss that can be replaced, or several.
        """
        if self._slots is None:
            paths = self.cfg.search.loss or (None if self.cfg.module else "criterion")
            with naming("search.loss"):
                if paths is None or "F." in str(paths):
                    self._slots = self._first_batch().watch.slots(paths and loss_names(paths))
                else:
                    self._slots = LossSlots(paths)
        return self._slots

    def callbacks(self, *, checkpoints: bool = True) -> list[pl.Callback]:
        """Return the callbacks of the config, with or without those that write checkpoints."""
        with naming("callbacks"):
            found = [build(node) for node in self.cfg.callbacks.values() if node]
        for each in found:
            if isinstance(each, AttractionMonitor) and each.loss is None:
                each.slot = self.slots()[0]  # no search is beside it in the comparison over fresh seeds
        return [c for c in found if checkpoints or not isinstance(c, pl.callbacks.Checkpoint)]

    def search(self, **overrides: Any) -> TaylorGLO | None:
        """Return the search, None with `search=none`.

        Its candidates are fresh modules, so that seeds cover their weights. `overrides` replace keys of the config.
        """
        node = self.cfg.search
        if node._target_ is None:
            return None
        if not self.cfg.module and not node.loss:
            overrides = {"loss": "criterion"} | overrides
        if "init" not in node:
            overrides = {"init": self.module} | overrides
        with naming("search"):
            search: TaylorGLO = build(node)(**overrides)
            return search

    def loggers(self) -> list[Logger]:
        """Return the loggers: one, several with `logger=many`, none with `logger=none`."""
        nodes = [self.cfg.logger] if "_target_" in self.cfg.logger else self.cfg.logger.values()
        with naming("logger"):
            return [build(node) for node in nodes]

    def trainer(self, **kwargs: Any) -> pl.Trainer:
        """Return a fresh trainer; `kwargs` replace arguments of the config."""
        with naming("trainer"):
            # a partial, because a config cannot hold the objects in kwargs
            trainer: pl.Trainer = build(self.cfg.trainer, _partial_=True)(**kwargs)
            return trainer

    def quiet_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Return a fresh trainer that does not log, write or print; without callbacks by default."""
        silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        return self.trainer(**({"callbacks": [], "profiler": None} | dict.fromkeys(silent, False) | kwargs))


def logged(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return what validation or test logged, over all loaders."""
    return {name: value for each in results for name, value in each.items()}
