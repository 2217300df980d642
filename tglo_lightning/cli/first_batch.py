"""What one batch shows of a module of the user's, before anything is trained or logged."""

import copy
import warnings
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from tglo_lightning.callbacks import TaylorGLO
from tglo_lightning.callbacks.race import raced_fit
from tglo_lightning.evaluation import InnerFit
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.labels import label_frequencies
from tglo_lightning.evaluation.probing import probe
from tglo_lightning.module import LossSlots
from tglo_lightning.module.finding import LossWatch
from tglo_lightning.search import Budget, Race


class FirstBatch(pl.Callback):
    """Notes the first batch of a fit, and which losses are called with what for it.

    Args:
        module: what is fitted, not yet set up: a loss that `setup` makes counts as a call, as in the search.
    """

    batch: Any
    loader: Any

    def __init__(self, module: pl.LightningModule) -> None:
        self.call: tuple[Any, ...] | None = None
        self.watch = LossWatch(module, self._note)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *_: Any) -> None:
        """Keep the batch, which the step may change."""
        self.batch, self.loader = copy.deepcopy(batch), trainer.train_dataloader

    @property
    def num_classes(self) -> int:
        """Number of the logits that the loss is called with.

        Raises:
            ValueError: no loss is called with logits.
        """
        logits = self.call and self.call[0]
        if not isinstance(logits, Tensor) or logits.dim() < 2:
            raise ValueError("the number of classes is not known; type loss.num_classes=NUMBER")
        return logits.shape[1]

    @property
    def priors(self) -> list[float]:
        """Frequency of each class among the training labels.

        Raises:
            ValueError: they are not class indices, one a sample, that lie in the batch.
        """
        found = label_frequencies(self.loader, self.batch, self.call and (self.call, {}))
        if found is None:
            raise ValueError(
                "the training labels cannot be counted, for the batch does not hold them as the loss gets them, one "
                "class index a sample; type the frequencies of the classes, as in 'loss.priors=[0.7,0.2,0.1]'"
            )
        return list(found)

    def _note(self, name: str, args: Any, options: Any) -> None:
        if self.call is None and len(args) >= 2:
            self.call = tuple(each.detach() if isinstance(each, Tensor) else each for each in args[:2])


class SearchCheck(pl.Callback):
    """Ends a fit at its start, by an error if a search would end before its first candidate.

    Args:
        search: the search, which is not run.
    """

    def __init__(self, search: TaylorGLO) -> None:
        self.search = search

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train copies on one batch, as the search does first.

        Raises:
            ValueError, RuntimeError: see :func:`tglo_lightning.evaluation.probing.probe`.
        """
        trainer.should_stop = True
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        search, settings = self.search, self.search.settings
        budget = settings.for_fit(trainer.max_epochs, trainer.max_steps, "last").budget
        assert isinstance(budget, Budget)
        fit = InnerFit(trainer, pl_module, LossSlots.of([]), search.monitor, budget, search.init)
        with isolated(fit.generators), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the search warns itself
            probe(fit, search.loss)
            settings.for_kind(fit.kind)
            if isinstance(settings.strategy, Race):
                raced_fit(trainer, fit, settings)
