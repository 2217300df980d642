"""The callback that metalearns the loss of a module before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from tglo_lightning.arguments import choice, flag
from tglo_lightning.callbacks.fit_search import DryRun, FitSearch
from tglo_lightning.callbacks.race import FinishedFit
from tglo_lightning.callbacks.report import SearchReport
from tglo_lightning.evaluation import check_strategy
from tglo_lightning.evaluation.auto import check_evaluator
from tglo_lightning.evaluation.inner import rebuild_optimizers
from tglo_lightning.losses import FamilyLoss
from tglo_lightning.module import LossSlots, restore_loss
from tglo_lightning.module.bases import CALLBACKS, Callback
from tglo_lightning.module.copies import INITS, copies_of
from tglo_lightning.module.messages import tell
from tglo_lightning.module.slot import loss_names
from tglo_lightning.search import Budget, Finals, SearchResult, SearchSettings, Space, Strategy
from tglo_lightning.search.files import journal_path
from tglo_lightning.search.prior import prior_name
from tglo_lightning.search.settings import MODES
from tglo_lightning.search.summary import warn_of_direction

# What was found for a module
_RESULTS: WeakKeyDictionary[Any, SearchResult] = WeakKeyDictionary()


class TaylorGLO(Callback):
    """Metalearns the loss of a LightningModule, then lets the Trainer train with it.

    At the start of ``fit`` candidate losses are drawn, a network is trained with each on a copy of the module, and
    scored by ``monitor``. The best are trained again from fresh seeds, and the winner is confirmed against the module's
    own loss on other seeds. Only if it is better there does it take the loss's place, with its learning rate. Then the
    ``fit`` goes on as if nothing had happened: same weights, same random state, step 0. A ``fit`` that resumes from a
    checkpoint written after the search takes the result from there; ``fast_dev_run`` skips the search. Under
    ``strategy="ddp"`` the ranks share the search, each candidate trained on the device of one of them.

    Args:
        loss: by default the loss that ``training_step`` calls. If it calls several: the path of the attribute that
            holds the one to replace, such as ``"head.criterion"``, or the function that it calls, such as
            ``"F.cross_entropy"``, or ``"F.cross_entropy#2"`` for the second line that calls it; or a list of these,
            such as those of auxiliary classifiers, whose losses are then searched for together.
        monitor: metric to optimise, as logged by the module, best in validation.
        mode: ``"max"`` or ``"min"``.
        generations: number of generations. By default one of ten presets, in place of a search: the module's own loss,
            label smoothing, and two robust losses at four learning rates each. A number goes on from there by CMA-ES.
        population: candidates a generation, after the presets.
        space: what is searched over in place of the surroundings of ``prior``: ``"taylorglo"``, the name or class of a
            family of losses, such as ``"smoothing"``, or a :class:`~tglo_lightning.search.Space`, such as
            ``TaylorSpace(order=4, constraint="stable")``.
        strategy: how: ``"presets"``, ``"warm"``, ``"cmaes"``, ``"random"``, ``"portfolio"``, or a
            :class:`~tglo_lightning.search.Strategy`. ``"race"`` or a :class:`~tglo_lightning.search.Race` searches for
            a network in place of a loss: the presets train side by side for the length of this fit, and the best
            network by validation goes into the module. The rest of the fit is its last epoch, without training.
        prior: where the search starts: ``"shared"``, a loss found on many tasks; the
            :class:`~tglo_lightning.search.SearchResult` of an earlier search, or the path of its ``search.json``; or
            ``None`` to start at 0, as published.
        budget: how long a candidate trains: a number of epochs, or a :class:`~tglo_lightning.search.Budget` with steps,
            limits and callbacks. By default as long as this fit.
        finals: how the winner is chosen and confirmed: :class:`~tglo_lightning.search.Finals`, or the number of seeds
            to confirm by, 10 by default; presets look after 4 whether the case is clear.
        init: where a candidate starts. ``"module"``: from the module's weights as they are. ``"reset"``: from new ones,
            by ``reset_parameters`` of every submodule. A function: from the module that it returns.
        seed: seed of the search.
        evaluator: how a population is scored: ``"trainer"`` (nested Trainers, one after the other), ``"vectorized"``
            (all in one pass), ``"sequential"`` (one after the other, by the same loop), ``"processes"`` or
            ``"processes-sequential"`` (the first or the third, spread over worker processes), ``"ray"`` or
            ``"ray-sequential"`` (spread over a Ray cluster), an object such as ``VectorizedEvaluator(compile=True)``,
            or ``"auto"``: a short timed trial picks the fastest that is valid, Ray never.
            They agree to float tolerance; for an exact repeat name the one in ``result.settings["evaluator"]``.
        journal: file that every finished training is written to, in JSON lines. By default ``search.jsonl`` in a
            directory below the Trainer's ``default_root_dir``, ``tglo/...``, whose name stands for all that the
            search depends on. The result is written beside it, as ``.json``.
        resume: ``True``: a search that was killed goes on from its journal when the same fit is started again, with the
            same result as if it had not been; one that was finished is not repeated. ``False``: search anew, with a
            journal at another place.
        report: write ``report.html`` beside the journal when the search ends, and again when the fit has ended, with
            the curves of its training and, if an ``AttractionMonitor`` watches it, the attraction of its samples. Needs
            ``pip install 'tglo-lightning[plots]'``.
        dry_run: say what the search would cost, and end the fit before it begins.

    Attributes:
        result: the :class:`~tglo_lightning.search.SearchResult`, ``None`` before the search.
        directory: where the search is written to; ``None`` before it, and if nothing could be written.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range; at the start of ``fit``, before any
            training: a module without that loss, a ``training_step`` that does not call it, an unknown ``monitor``, a
            journal that is damaged, in use or another search's, a strategy that shards the module (FSDP, DeepSpeed) or
            trains in child processes (``ddp_spawn``).
        ImportError: ``evaluator="ray"`` without Ray.
        RuntimeError: another thread of this process searches.
        SearchError: during the search, no candidate of a generation could be trained.
        RankError: under DDP, another rank died or failed during the search.

    Source: arXiv 2002.00059 and 2010.00788.

    >>> TaylorGLO("criterion", "val/acc", generations=8, budget=10).state_key
    "TaylorGLO{'loss': 'criterion'}"
    """

    def __init__(
        self,
        loss: str | Sequence[str] | None = None,
        monitor: str = "val/acc",
        mode: str = "max",
        *,
        generations: int | None = None,
        population: int = 10,
        space: Space | type[FamilyLoss] | str | None = None,
        strategy: Strategy | str | None = None,
        prior: Any = "shared",
        budget: Budget | int | None = None,
        finals: Finals | int | None = None,
        init: Callable[[], Any] | str = "module",
        seed: int = 0,
        evaluator: Any = "auto",
        journal: str | PathLike[str] | None = None,
        resume: bool = True,
        report: bool = True,
        dry_run: bool = False,
    ) -> None:
        super().__init__()
        self.loss = None if loss is None else loss_names(loss)
        self.slots = LossSlots.of([])
        if not isinstance(monitor, str) or not monitor:
            raise TypeError(f"`monitor` must be the name of a logged metric, got {monitor!r}.")
        self.monitor, self.mode = monitor, choice("mode", mode, MODES)
        warn_of_direction(monitor, mode)
        if not callable(init):
            choice("init", init, INITS, " or a function that builds a module")
        self.init = init
        self.prior = prior_name(prior) if space is None else ""
        settings = SearchSettings(generations, population, space, strategy, finals, budget, seed, prior)
        self.settings = settings.for_places(1 if self.loss is None else len(self.loss))
        callbacks = self.settings.budget.callbacks if isinstance(self.settings.budget, Budget) else ()
        if not all(isinstance(entry, CALLBACKS) for entry in callbacks):
            raise TypeError(f"`budget.callbacks` must be Lightning callbacks, got {list(callbacks)!r}.")
        check_evaluator(evaluator)
        self.evaluator = evaluator
        self.journal = journal_path(journal)
        self.resume = flag("resume", resume)
        self.dry_run = flag("dry_run", dry_run)
        self.directory: Path | None = None
        self.result: SearchResult | None = None
        self.report = flag("report", report)
        self._report = SearchReport(self.report)
        self._hooks: list[Any] = []
        # Least epochs and steps of a fit that a dry run ends
        self._minimum: tuple[Any, Any] | None = None
        # Whether the result belongs to a fit, and not to a checkpoint that is about to be gone on from
        self._used = False
        # The network of a race, and its file
        self._weights: dict[str, Tensor] = {}
        self._network: Path | None = None

    # Lightning's hooks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Be ready for a checkpoint that holds another loss."""
        if stage == "fit":
            if self._used and _RESULTS.get(pl_module) is not self.result:
                tell("TaylorGLO: another module than in the fit before, so there is a new search.")
                self.result, self.slots, self._used = None, LossSlots.of([]), False
            if self.result is None:
                check_strategy(trainer, self.evaluator)
        # An earlier fit that failed has not come to its teardown
        self.teardown(trainer, pl_module, stage)
        for module in copies_of(pl_module, trainer.callbacks):
            self._hooks.append(module.register_load_state_dict_pre_hook(_restore))
            self._install(module)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Search, unless there is a result already."""
        self._report.reset()
        if trainer.fast_dev_run:
            tell("TaylorGLO: `fast_dev_run` skips the search; the module keeps its loss.")
            return
        self._weights = {}
        if self.result is None:
            try:
                self.result = self._search(trainer, pl_module)
            except DryRun:
                trainer.should_stop = True
                # Or it would train as far as these say
                self._minimum = trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps
                trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
                return
        elif self._used:
            tell("TaylorGLO: this module was searched for before; its loss stays. Another search needs a new callback.")
        self._used = True
        _RESULTS[pl_module] = self.result
        for module in copies_of(pl_module, trainer.callbacks):
            self._install(module)
        rebuild_optimizers(trainer, self.result.criterion.step)
        if self._weights:
            FinishedFit(trainer, pl_module, self._weights, self._network)
            self._weights = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the module has logged, for the report."""
        self._report.on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Complete the report, and hand the files of the search to the loggers."""
        self._report.on_fit_end(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the module without hooks of ours, and the Trainer as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._minimum is not None:
            trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = self._minimum
            self._minimum = None

    @property
    def state_key(self) -> str:
        """One state for each loss that is metalearned."""
        return self._generate_state_key(loss=self.loss[0] if self.loss and len(self.loss) == 1 else self.loss)

    def state_dict(self) -> dict[str, Any]:
        """The result, as plain values."""
        return {"result": None if self.result is None else self.result.to_dict(), "slots": self.slots.to_list()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the result of a checkpoint."""
        if state_dict["result"] is not None:
            self.result, self._used = SearchResult.from_dict(state_dict["result"]), False
            self.slots = LossSlots.from_list(state_dict["slots"])

    def _search(self, trainer: Any, pl_module: Any) -> SearchResult:
        """Search within a fit; remember where the losses are, and the network if it was a race."""
        found = FitSearch(self, trainer, pl_module).run()
        self.slots, self.directory = found.slots, found.directory
        self._weights, self._network = found.weights, found.network
        self._report.on_search_end(found.result, found.path, found.attraction)
        return found.result

    def _install(self, pl_module: Any) -> None:
        if self.result is not None:
            self.slots.install(pl_module, self.result.criterion)


def _restore(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before weights are loaded: give the module the metalearned loss whose ``theta`` is among them."""
    restore_loss(module, state_dict, prefix)
