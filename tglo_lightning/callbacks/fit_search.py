"""The search within a fit: what it needs of Trainer and module, its files, its evaluator, its ranks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tglo_lightning.callbacks.cost import cost, takes_best
from tglo_lightning.callbacks.progress import SearchMonitor, hides_bars
from tglo_lightning.callbacks.race import check_race, raced_attraction, raced_fit, run_race, tell_limits
from tglo_lightning.callbacks.recording import Recording, versions
from tglo_lightning.callbacks.search_attraction import SearchAttraction
from tglo_lightning.evaluation import InnerFit, Probe, Ranks, choose_evaluator, probe
from tglo_lightning.evaluation.auto import EVALUATORS
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.module import LossSlots
from tglo_lightning.module.copies import check_resettable
from tglo_lightning.module.messages import tell
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.loggers import boards
from tglo_lightning.search import Budget, Objective, Race, SearchResult, SearchSettings, search
from tglo_lightning.search.code import digest
from tglo_lightning.search.interruption import interruptible
from tglo_lightning.search.summary import summary, warn_of_seeds

if TYPE_CHECKING:
    from tglo_lightning.callbacks.taylorglo import TaylorGLO


class DryRun(Exception):
    """A search that was only to be estimated."""


@dataclass
class Found:
    """What a search within a fit leaves: the result, where the losses are, the directory and the file that hold it, the
    network of a race and its file, and the attraction by name: of the module's own loss and of a race's winner.
    """

    result: SearchResult
    slots: LossSlots
    directory: Path | None = None
    path: Path | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    network: Path | None = None
    attraction: dict[str, AttractionRecord] = field(default_factory=dict)


class FitSearch:
    """The search of a callback at the start of a fit of the outer ``trainer`` and ``module``."""

    def __init__(self, callback: TaylorGLO, trainer: Any, module: Any) -> None:
        self.callback, self.trainer, self.module = callback, trainer, module
        self._init = callback.init if isinstance(callback.init, str) else "function"

    def run(self) -> Found:
        """Search, as the leading rank or as one that follows it.

        Raises:
            DryRun: the cost was told, and nothing else was asked for.
        """
        callback, trainer = self.callback, self.trainer
        if callback.init == "reset":
            check_resettable(self.module)
        score = "best" if takes_best(trainer, callback.monitor) else "last"
        settings = callback.settings.for_fit(trainer.max_epochs, trainer.max_steps, score)
        assert isinstance(settings.budget, Budget)
        if racing := isinstance(settings.strategy, Race):
            check_race(trainer.callbacks, trainer.ckpt_path)
            tell_limits(trainer, self.module)
        # The names of functions and of no loss are looked up by the probe
        named = callback.loss is not None and not any(name.startswith("F.") for name in callback.loss)
        slots = LossSlots(callback.loss or ()) if named else LossSlots.of([])
        fit = InnerFit(trainer, self.module, slots, callback.monitor, settings.budget, callback.init)
        # Whatever draws random numbers on the way, the outer fit goes on as if it had not
        with interruptible() as check, isolated(fit.generators, quiet=False), Ranks(trainer) as ranks:
            seen = probe(fit, callback.loss)
            settings = settings.for_kind(fit.kind)
            _warn_of_monitors(trainer, seen.dependent)
            ranks.agree(digest([[of["lengths"], of["contents"]] for of in seen.identity["data"].values()]))
            if racing:
                fit, settings = raced_fit(trainer, fit, callback.settings)
            if ranks.leads:
                found = self._lead(fit, seen, settings, ranks, check)
                ranks.order("finish", None if found is None else (found.result.to_dict(), found.weights))
            else:
                told = ranks.follow(lambda name: self._choose(name, fit, 1))
                found = told and Found(SearchResult.from_dict(told[0]), fit.slots, weights=told[1])
        if found is None:
            raise DryRun
        tell(summary(found.result))
        return found

    def _choose(self, name: str, fit: InnerFit, population: int, processes: bool = False) -> Any:
        """The evaluator that was given, or the one of this name."""
        given = self.callback.evaluator
        return choose_evaluator(name if isinstance(given, str) else given, fit, population, processes=processes)

    def _lead(
        self, fit: InnerFit, seen: Probe, settings: SearchSettings, ranks: Ranks, check: Callable[[], None]
    ) -> Found | None:
        """Search; the other ranks follow. In a dry run only the cost is told."""
        callback, trainer = self.callback, self.trainer
        recording = self._recording(fit, seen, settings)
        before = recording.evaluator
        # A search that goes on keeps what it began with
        asked = before if callback.evaluator == "auto" and before in EVALUATORS else callback.evaluator
        share = math.ceil(settings.population / ranks.size)
        try:
            evaluator = self._choose(asked, fit, share, processes=ranks.size == 1)
            if not callback.dry_run:
                evaluator = ranks.spread(evaluator)
        except (KeyboardInterrupt, SystemExit):
            tell("TaylorGLO: interrupted before the search began.")
            raise
        check()
        start = f" (prior: {callback.prior})" if callback.prior and not isinstance(settings.strategy, Race) else ""
        tell(f"TaylorGLO: {cost(settings, evaluator, fit, measure=callback.dry_run)}{start}.")
        if callback.dry_run:
            evaluator.close()
            return None
        options = tuple(fit.slots.options(fit.module))
        named = {"loss": fit.slots.paths, "mode": callback.mode, "init": self._init, "prior": callback.prior}
        name = fit.slots.name(fit.module)
        objective = Objective(seen.num_classes, callback.monitor, callback.mode, name, options, seen.priors)
        notes = {"versions": versions(trainer), "original_options": list(options), "inputs": seen.inputs}
        notes["slots"] = fit.slots.to_list()
        weights: dict[str, Tensor] = {}
        network: Path | None = None
        measured: dict[str, AttractionRecord] = {}
        arguments = {"monitor": callback.monitor, **settings.to_dict(), **named, "evaluator": str(asked)}
        try:
            with recording.journal(evaluator, notes) as journal:
                for board in boards(trainer):
                    board.arguments(arguments)
                # Other ranks have networks of their own
                kept = recording.path if callback.report else None
                attraction = SearchAttraction(fit, kept) if ranks.size == 1 else None
                if isinstance(settings.strategy, Race):
                    at = recording.path
                    # Not a name that a checkpoint of the user's may have beside a journal of theirs
                    network = None if at is None else at.with_name(f"{at.stem}-race.pt")
                    race = (trainer, evaluator, settings, objective, network)
                    result, weights = run_race(*race, journal=journal, check=check, attraction=attraction)
                    if attraction is not None:
                        measured = raced_attraction(attraction, result)
                else:
                    shown: Any = {"prior": callback.prior, "disable": hides_bars(trainer)}
                    with SearchMonitor(boards(trainer), settings, callback.monitor, **shown) as listener:
                        look = None if attraction is None else attraction.look
                        rest: Any = {"journal": journal, "listener": listener, "check": check, "look": look}
                        result = search(evaluator, settings, objective, **rest)
                        listener.on_search_end(result)
                    if attraction is not None:
                        measured = attraction.records({"original": "original"})
        finally:
            evaluator.close()
        reset = " or pass init='reset' for weights of their own" if callback.init == "module" else ""
        warn_of_seeds(result, f"Shuffle the training data{reset}.")
        directory = None if recording.path is None else recording.path.parent
        return Found(result, fit.slots, directory, recording.save(result), weights, network, measured)

    def _recording(self, fit: InnerFit, seen: Probe, settings: SearchSettings) -> Recording:
        """The files of this search; other ranks than the first write none."""
        callback, trainer = self.callback, self.trainer
        path: Path | None = callback.journal or Path(trainer.default_root_dir)
        if not trainer.is_global_zero or (callback.journal is None and "://" in str(trainer.default_root_dir)):
            path = None
        # A strategy may hold what an earlier search left, so its code alone counts beside its settings
        seen.seen.value(settings.strategy)
        identity = {
            "settings": settings.identity,
            "loss": fit.slots.paths,
            "original": fit.slots.name(fit.module),
            "monitor": callback.monitor,
            "mode": callback.mode,
            "init": self._init,
            "space": seen.seen.value(settings.space),
            "classes": seen.num_classes,
            **seen.identity,
            "code": seen.seen.code(),
            "left_out": seen.seen.summary(),
        }
        named, asked = callback.journal is not None, settings.to_dict()
        return Recording(path, identity, callback.evaluator, asked=asked, named=named, resume=callback.resume)


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
