"""The callback that metalearns the loss of a module before it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from os import PathLike
from typing import Any

from torch import nn

from tglo_lightning._version import __version__
from tglo_lightning.callbacks.progress import SearchMonitor
from tglo_lightning.evaluation import (
    Budget,
    InnerFit,
    Probe,
    Ranks,
    check_strategy,
    choose_evaluator,
    probe,
    restore_loss,
)
from tglo_lightning.evaluation.auto import check_evaluator
from tglo_lightning.evaluation.bases import CALLBACKS, Callback
from tglo_lightning.evaluation.initial import INITS, check_resettable
from tglo_lightning.evaluation.isolation import isolated, preserved
from tglo_lightning.evaluation.messages import tell
from tglo_lightning.evaluation.slot import LossSlots
from tglo_lightning.search import Finalist, SearchResult, SearchSettings, search
from tglo_lightning.search.journal import Journal, JournaledEvaluator

__all__ = ["TaylorGLO"]

MODES = ("max", "min")
# Packages whose versions may change the outcome of a search
VERSIONS = ("torch", "pytorch-lightning", "cma", "numpy")


class TaylorGLO(Callback):
    """Metalearns the loss of a LightningModule, then lets the Trainer train with it.

    At the start of ``fit`` candidate losses are drawn by CMA-ES, a network is trained with each by a fresh Trainer on
    a copy of the module, and scored by ``monitor``. The best are trained again from fresh seeds, the module's own loss
    beside them. If one of them has the better mean it takes the loss's place, else the module keeps its loss. Then the
    ``fit`` goes on as if nothing had happened: same weights, same random state, step 0. A ``fit`` that resumes from a
    checkpoint written after the search takes the result from there; ``fast_dev_run`` skips the search. Under
    ``strategy="ddp"`` the ranks share the search, each candidate trained on the device of one of them.

    Args:
        loss: path of the module's attribute that holds the loss, such as ``"criterion"`` or ``"head.criterion"``; or a
            list of paths, such as those of auxiliary classifiers, whose losses are then searched for together.
        monitor: metric to optimise, as logged by the module, best in validation.
        mode: ``"max"`` or ``"min"``.
        generations: number of generations.
        population: candidates a generation.
        candidate_epochs: epochs that a candidate trains; 1 if neither this nor ``candidate_steps`` is given.
        candidate_steps: optimizer steps that a candidate trains, in place of ``candidate_epochs``.
        order: order of the polynomial.
        sigma: initial step size of CMA-ES.
        finalists: candidates that are trained again.
        repeats: fresh seeds a finalist.
        constraint: what must hold of a loss to be trained at all: ``"exact"`` (the first step pushes the true class
            up), ``"stable"`` (and no drift to one class), ``"published"`` (arXiv 2010.00788), ``None``, or a function
            of ``theta``, a list of floats.
        parameterization: ``"minimal"`` searches over what the weights can feel of a loss with hard labels, ``"full"``
            over all of ``theta``, for soft targets (mixup) too; ``"smoothed_ce"`` over cross-entropy with label
            smoothing and a factor, the fair opponent of both.
        init: where a candidate starts. ``"given"``: from the module's weights as they are. ``"reset"``: from new ones,
            by ``reset_parameters`` of every submodule. A function: from the module that it returns.
        seed: seed of the search.
        candidate_callbacks: callbacks for the trainings of the candidates; each gets a copy.
        evaluator: how a population is scored: ``"trainer"`` (nested Trainers, one after the other), ``"vectorized"``
            (all in one pass), ``"sequential"`` (one after the other, by the same loop), ``"processes"`` or
            ``"processes-sequential"`` (the first or the third, spread over worker processes), ``"ray"`` or
            ``"ray-sequential"`` (spread over a Ray cluster), an object such as ``VectorizedEvaluator(compile=True)``,
            or ``"auto"``: a short timed trial picks the fastest that is valid, Ray never.
            They agree to float tolerance; for an exact repeat name the one in ``result.settings["evaluator"]``.
        journal: file that every finished training is written to. A search that was killed goes on from there, with the
            same result as if it had not been, when the same fit is started again; a journal of another search is
            refused.

    Attributes:
        result: the :class:`~tglo_lightning.search.SearchResult`, ``None`` before the search.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range; at the start of ``fit``, before any
            training: a module without that loss, a ``training_step`` that does not call it, an unknown ``monitor``, a
            strategy that shards the module (FSDP, DeepSpeed) or trains in child processes (``ddp_spawn``).
        ImportError: ``evaluator="ray"`` without Ray.
        RankError: under DDP, another rank died or failed during the search.

    Source: arXiv 2002.00059 and 2010.00788.

    >>> TaylorGLO(generations=20, population=20, candidate_epochs=2).state_key
    "TaylorGLO{'loss': 'criterion'}"
    """

    def __init__(
        self,
        loss: str | Sequence[str] = "criterion",
        monitor: str = "val/acc",
        mode: str = "max",
        *,
        generations: int = 10,
        population: int = 20,
        candidate_epochs: int | None = None,
        candidate_steps: int | None = None,
        order: int = 3,
        sigma: float = 1.2,
        finalists: int = 5,
        repeats: int = 5,
        constraint: str | Callable[[list[float]], bool] | None = "exact",
        parameterization: str = "minimal",
        init: str | Callable[[], Any] = "given",
        seed: int = 0,
        candidate_callbacks: Sequence[Any] = (),
        evaluator: Any = "auto",
        journal: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.slots = LossSlots(loss)
        if not isinstance(monitor, str) or not monitor:
            raise TypeError(f"`monitor` must be the name of a logged metric, got {monitor!r}.")
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}, got {mode!r}.")
        if not callable(init) and init not in INITS:
            raise ValueError(f"`init` must be one of {INITS} or a function that builds a module, got {init!r}.")
        if candidate_epochs is None and candidate_steps is None:
            candidate_epochs = 1
        self.monitor = monitor
        self.mode = mode
        self.budget = Budget(candidate_epochs, candidate_steps)
        self.settings = SearchSettings(
            generations=generations,
            population=population,
            order=order,
            sigma=sigma,
            finalists=finalists,
            repeats=repeats,
            constraint=constraint,
            parameterization=parameterization,
            seed=seed,
            losses=len(self.slots),
        )
        self.init = init
        if not isinstance(candidate_callbacks, list | tuple) or not all(
            isinstance(entry, CALLBACKS) for entry in candidate_callbacks
        ):
            raise TypeError(f"`candidate_callbacks` must be a list of callbacks, got {candidate_callbacks!r}.")
        self.candidate_callbacks = list(candidate_callbacks)
        check_evaluator(evaluator)
        self.evaluator = evaluator
        if journal is not None and not isinstance(journal, str | PathLike):
            raise TypeError(f"`journal` must be the path of a file, got {journal!r}.")
        self.journal = journal
        self.result: SearchResult | None = None
        self._hooks: list[Any] = []

    # Lightning's hooks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that there is a loss to replace, and be ready for a checkpoint that holds another."""
        if stage == "fit" and self.result is None:
            check_strategy(trainer, self.evaluator)
        for slot in self.slots:
            slot.get(pl_module)
        # An earlier fit that failed has not come to its teardown
        self.teardown(trainer, pl_module, stage)
        for module in _copies(trainer, pl_module):
            self._hooks.append(module.register_load_state_dict_pre_hook(_restore))
            self._install(module)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Search, unless there is a result already."""
        if trainer.fast_dev_run:
            tell("TaylorGLO: `fast_dev_run` skips the search; the module keeps its loss.")
            return
        if self.result is None:
            self.result = self._search(trainer, pl_module)
        for module in _copies(trainer, pl_module):
            self._install(module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the module without hooks of ours."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def state_key(self) -> str:
        """One state for each loss that is metalearned."""
        return self._generate_state_key(loss=self.slots.paths[0] if len(self.slots) == 1 else self.slots.paths)

    def state_dict(self) -> dict[str, Any]:
        """The result, as plain values."""
        return {"result": None if self.result is None else self.result.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the result of a checkpoint."""
        if state_dict["result"] is not None:
            self.result = SearchResult.from_dict(state_dict["result"])

    # The search

    def _search(self, trainer: Any, pl_module: Any) -> SearchResult:
        if self.init == "reset":
            check_resettable(pl_module)
        fit = InnerFit(trainer, pl_module, self.slots, self.monitor, self.budget, self.init, self.candidate_callbacks)
        # Whatever draws random numbers on the way, the outer fit goes on as if it had not
        with isolated(quiet=False), preserved(fit.generators), Ranks(trainer) as ranks:
            seen = probe(fit)
            ranks.agree("The first batch", seen.targets)
            if ranks.leads:
                result = self._scored(trainer, fit, seen, ranks)
                ranks.finish(result.to_dict())
            else:
                result = SearchResult.from_dict(self._followed(fit, ranks))
        tell(_verdict(result))
        return result

    def _followed(self, fit: InnerFit, ranks: Ranks) -> Any:
        """The result of the search that another rank leads."""
        name = ranks.evaluator()
        evaluator = choose_evaluator(name if isinstance(self.evaluator, str) else self.evaluator, fit, 1)
        try:
            return ranks.follow(evaluator)
        finally:
            evaluator.close()

    def _scored(self, trainer: Any, fit: InnerFit, seen: Probe, ranks: Ranks) -> SearchResult:
        share = math.ceil(self.settings.population / ranks.size)
        evaluator = ranks.spread(choose_evaluator(self._evaluator(), fit, share, processes=ranks.size == 1))
        try:
            with (
                self._journaled(evaluator, fit, seen) as recorded,
                SearchMonitor(trainer, self.settings, self.monitor) as listener,
            ):
                result = search(
                    recorded,
                    self.settings,
                    num_classes=seen.num_classes,
                    monitor=self.monitor,
                    mode=self.mode,
                    original_name=fit.slots.name(fit.module),
                    listener=listener,
                )
                listener.log(_outcome(result), self.settings.generations - 1)
        finally:
            evaluator.close()
        result.settings["evaluator"] = _name(evaluator)
        return result

    def _evaluator(self) -> Any:
        """The evaluator asked for; a search that goes on keeps the one it began with."""
        if self.evaluator == "auto" and self.journal is not None:
            return Journal.header(self.journal).get("evaluator", "auto")
        return self.evaluator

    @contextmanager
    def _journaled(self, evaluator: Any, fit: InnerFit, seen: Probe) -> Iterator[Any]:
        """``evaluator``, with a journal if there is to be one."""
        if self.journal is None:
            yield evaluator
            return
        header = {
            "settings": self.settings.to_dict(),
            "loss": self.slots.paths,
            "original": fit.slots.name(fit.module),
            "monitor": self.monitor,
            "mode": self.mode,
            "budget": asdict(self.budget),
            "init": self.init if isinstance(self.init, str) else "function",
            "module": type(fit.module).__name__,
            "data": seen.fingerprint,
            "evaluator": _name(evaluator),
            **({"ranks": parts} if (parts := getattr(evaluator, "parts", 1)) > 1 else {}),
            "versions": {"tglo-lightning": __version__, **{name: version(name) for name in VERSIONS}},
        }
        journal = Journal(self.journal, header)
        try:
            recorded = JournaledEvaluator(evaluator, journal, together=getattr(evaluator, "together", False))
            if recorded.replayed:
                tell(f"TaylorGLO goes on from {journal.path}, which holds {recorded.replayed} trainings.")
            yield recorded
        except (KeyboardInterrupt, SystemExit):
            tell(f"TaylorGLO: interrupted. Start the same fit again to go on from {journal.path}.")
            raise
        finally:
            journal.close()

    def _install(self, pl_module: Any) -> None:
        result = self.result
        if result is None or result.kept != "metalearned" or result.best is None or result.best.theta is None:
            return
        if not self.slots.holds(pl_module, result.best.theta):
            self.slots.install(pl_module, result.best.theta)


def _name(evaluator: Any) -> str:
    return str(getattr(evaluator, "name", type(evaluator).__name__))


def _copies(trainer: Any, pl_module: Any) -> Iterator[Any]:
    """The module, and the copies of it that other callbacks hold, as those that average weights do."""
    yield pl_module
    for callback in trainer.callbacks:
        for value in vars(callback).values():
            for child in value.modules() if isinstance(value, nn.Module) else ():
                if type(child) is type(pl_module) and child is not pl_module:
                    yield child


def _restore(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before weights are loaded: give the module the metalearned loss whose ``theta`` is among them."""
    restore_loss(module, state_dict, prefix)


def _outcome(result: SearchResult) -> dict[str, float]:
    """The finals, for the loggers."""
    metrics = {"kept_metalearned": float(result.kept == "metalearned"), "original_mean": result.original.mean}
    metrics["original_std"] = result.original.std
    if result.best is not None:
        metrics |= {"finalist_mean": result.best.mean, "finalist_std": result.best.std}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _verdict(result: SearchResult) -> str:
    """The outcome in words and figures."""

    def figures(finalist: Finalist) -> str:
        return f"{finalist.mean:.4g} +- {finalist.std:.2g} (n={len(finalist.fitness)})"

    against = f"{result.original.name} {figures(result.original)}"
    trained = f"{result.candidates} candidates, {result.failed} failed, {result.infeasible} infeasible draws, "
    trained += f"{result.seconds:.0f} s"
    if result.best is None:
        error = next((candidate.error for candidate in result.history if candidate.error), "no finite metric")
        return f"TaylorGLO kept the original loss: no candidate could be trained ({error}). {against}; {trained}."
    if result.kept == "original":
        return (
            f"TaylorGLO kept the original loss: no finalist beat it on {result.monitor}. {against}, best finalist "
            f"{figures(result.best)}; {trained}."
        )
    return (
        f"TaylorGLO: the metalearned loss beats the original on {result.monitor}: {figures(result.best)} against "
        f"{against}; {trained}.\n  f(y, h) = {result.best.formula}"
    )
