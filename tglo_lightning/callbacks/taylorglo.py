"""The callback that metalearns the loss of a module before it is trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tglo_lightning.arguments import choice, flag
from tglo_lightning.callbacks.progress import SearchMonitor
from tglo_lightning.callbacks.recording import Recording, journal_path, versions
from tglo_lightning.callbacks.report import SearchReport
from tglo_lightning.evaluation import InnerFit, Probe, Ranks, check_strategy, choose_evaluator, probe
from tglo_lightning.evaluation.auto import EVALUATORS, check_evaluator
from tglo_lightning.evaluation.inner import rebuild_optimizers
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.losses import FamilyLoss
from tglo_lightning.module import LossSlots, restore_loss
from tglo_lightning.module.bases import CALLBACKS, Callback
from tglo_lightning.module.copies import INITS, check_resettable, copies_of
from tglo_lightning.module.fingerprint import digest, sources
from tglo_lightning.module.messages import tell
from tglo_lightning.module.slot import loss_names
from tglo_lightning.search import Budget, Finals, Objective, SearchResult, SearchSettings, Space, Strategy, search
from tglo_lightning.search.interruption import interruptible
from tglo_lightning.search.settings import MODES
from tglo_lightning.search.summary import outcome_metrics, summary, warn_of_direction, warn_of_seeds
from tglo_lightning.wording import counted

__all__ = ["TaylorGLO"]

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
        generations: number of generations.
        population: candidates a generation.
        space: what is searched over: ``"taylorglo"``, the name or class of a family of losses, such as ``"smoothing"``,
            or a :class:`~tglo_lightning.search.Space`, such as ``TaylorSpace(order=4, constraint="stable")``.
        strategy: how: ``"cmaes"``, ``"random"``, or a :class:`~tglo_lightning.search.Strategy`.
        budget: how long a candidate trains: a number of epochs, or a :class:`~tglo_lightning.search.Budget` with steps,
            limits and callbacks. By default as long as this fit.
        finals: how the winner is chosen and confirmed: :class:`~tglo_lightning.search.Finals`, or the number of seeds
            to confirm by.
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
        generations: int = 10,
        population: int = 20,
        space: Space | type[FamilyLoss] | str = "shape",
        strategy: Strategy | str = "cmaes",
        budget: Budget | int | None = None,
        finals: Finals | int = 10,
        init: Callable[[], Any] | str = "module",
        seed: int = 0,
        evaluator: Any = "auto",
        journal: str | PathLike[str] | None = None,
        resume: bool = True,
        report: bool = True,
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
        self.settings = SearchSettings(generations, population, space, strategy, finals, budget, seed).for_places(
            1 if self.loss is None else len(self.loss)
        )
        callbacks = self.settings.budget.callbacks if isinstance(self.settings.budget, Budget) else ()
        if not all(isinstance(entry, CALLBACKS) for entry in callbacks):
            raise TypeError(f"`budget.callbacks` must be Lightning callbacks, got {list(callbacks)!r}.")
        check_evaluator(evaluator)
        self.evaluator = evaluator
        self.journal = journal_path(journal)
        self.resume = flag("resume", resume)
        self.directory: Path | None = None
        self.result: SearchResult | None = None
        self._report = SearchReport() if flag("report", report) else None
        self._hooks: list[Any] = []
        # Whether the result belongs to a fit, and not to a checkpoint that is about to be gone on from
        self._used = False

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
        if self._report is not None:
            self._report.reset()
        if trainer.fast_dev_run:
            tell("TaylorGLO: `fast_dev_run` skips the search; the module keeps its loss.")
            return
        if self.result is None:
            self.result = self._search(trainer, pl_module)
        elif self._used:
            tell("TaylorGLO: this module was searched for before; its loss stays. Another search needs a new callback.")
        self._used = True
        _RESULTS[pl_module] = self.result
        for module in copies_of(pl_module, trainer.callbacks):
            self._install(module)
        rebuild_optimizers(trainer, self.result.criterion.step)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the module has logged, for the report."""
        if self._report is not None:
            self._report.on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Complete the report."""
        if self._report is not None:
            self._report.on_fit_end(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the module without hooks of ours."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

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

    # The search

    def _search(self, trainer: Any, pl_module: Any) -> SearchResult:
        if self.init == "reset":
            check_resettable(pl_module)
        settings = self.settings.for_fit(trainer.max_epochs, trainer.max_steps)
        assert isinstance(settings.budget, Budget)
        # The names of functions and of no loss are looked up by the probe
        named = self.loss is not None and not any(name.startswith("F.") for name in self.loss)
        slots = LossSlots(self.loss or ()) if named else LossSlots.of([])
        for slot in slots:
            slot.get(pl_module)
        fit = InnerFit(trainer, pl_module, slots, self.monitor, settings.budget, self.init)
        # Whatever draws random numbers on the way, the outer fit goes on as if it had not
        with interruptible() as check, isolated(fit.generators, quiet=False), Ranks(trainer) as ranks:
            seen = probe(fit, self.loss)
            self.slots, settings = fit.slots, settings.for_kind(seen.kind)
            _warn_of_monitors(trainer, seen.dependent)
            ranks.agree("The data", digest(seen.identity["data"]))
            if ranks.leads:
                assert isinstance(settings.budget, Budget)
                tell(
                    f"TaylorGLO: up to {counted(settings.trainings, 'training')} of "
                    f"{counted(settings.budget.length, settings.budget.unit[:-1])} each."
                )
                result = self._lead(trainer, fit, seen, settings, ranks, check)
                ranks.finish(result.to_dict())
            else:
                result = SearchResult.from_dict(ranks.follow(lambda name: self._choose(name, fit, 1)))
                if self._report is not None:
                    self._report.on_search_end(result, None)
        tell(summary(result))
        return result

    def _choose(self, name: str, fit: InnerFit, population: int, processes: bool = False) -> Any:
        """The evaluator that was given, or the one of this name."""
        asked = name if isinstance(self.evaluator, str) else self.evaluator
        return choose_evaluator(asked, fit, population, processes=processes)

    def _lead(
        self,
        trainer: Any,
        fit: InnerFit,
        seen: Probe,
        settings: SearchSettings,
        ranks: Ranks,
        check: Callable[[], None],
    ) -> SearchResult:
        """Search; the other ranks follow."""
        recording = self._recording(trainer, fit, seen, settings)
        before = recording.evaluator
        # A search that goes on keeps what it began with
        asked = before if self.evaluator == "auto" and before in EVALUATORS else self.evaluator
        share = math.ceil(settings.population / ranks.size)
        try:
            evaluator = ranks.spread(self._choose(asked, fit, share, processes=ranks.size == 1))
        except (KeyboardInterrupt, SystemExit):
            tell("TaylorGLO: interrupted before the search began.")
            raise
        check()
        options = tuple(fit.slots.options(fit.module))
        objective = Objective(seen.num_classes, self.monitor, self.mode, fit.slots.name(fit.module), options)
        notes = {"versions": versions(trainer), "original_options": list(options), "inputs": seen.inputs}
        try:
            with (
                recording.journal(evaluator, notes) as journal,
                SearchMonitor(trainer, settings, self.monitor) as listener,
            ):
                self.directory = None if recording.path is None else recording.path.parent
                result = search(evaluator, settings, objective, journal=journal, listener=listener, check=check)
                listener.log(outcome_metrics(result), settings.generations)
        finally:
            evaluator.close()
        reset = " or pass init='reset' for weights of their own" if self.init == "module" else ""
        warn_of_seeds(result, f"Shuffle the training data{reset}.")
        path = recording.save(result)
        if self._report is not None:
            self._report.on_search_end(result, path)
        return result

    def _recording(self, trainer: Any, fit: InnerFit, seen: Probe, settings: SearchSettings) -> Recording:
        """The files of this search; other ranks than the first write none."""
        path: Path | None = self.journal or Path(trainer.default_root_dir)
        if not trainer.is_global_zero or (self.journal is None and "://" in str(trainer.default_root_dir)):
            path = None
        own = [settings.strategy, settings.space, getattr(settings.space, "constraint", None)]
        identity = {
            "settings": settings.to_dict(),
            "loss": self.slots.paths,
            "original": fit.slots.name(fit.module),
            "monitor": self.monitor,
            "mode": self.mode,
            "init": self.init if isinstance(self.init, str) else "function",
            "code": sources(item if callable(item) else type(item) for item in own if item is not None),
            "classes": seen.num_classes,
            **seen.identity,
        }
        return Recording(path, identity, self.evaluator, named=self.journal is not None, resume=self.resume)

    def _install(self, pl_module: Any) -> None:
        if self.result is not None:
            self.slots.install(pl_module, self.result.criterion)


def _warn_of_monitors(trainer: Any, dependent: frozenset[str]) -> None:
    """Warn of callbacks and schedulers that follow the loss that may be replaced."""
    followers = [(type(c).__name__, getattr(c, "monitor", None)) for c in trainer.callbacks]
    followers += [(type(c.scheduler).__name__, c.monitor) for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]
    for name, monitor in followers:
        if monitor in dependent:
            warnings.warn(
                f"{name} watches {monitor!r}, which is computed from the loss that the search may replace by one on "
                f"another scale, perhaps below zero. Let {name} watch a metric that does not depend on it, or log "
                "F.cross_entropy(logits, target).",
                stacklevel=2,
            )


def _restore(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before weights are loaded: give the module the metalearned loss whose ``theta`` is among them."""
    restore_loss(module, state_dict, prefix)
