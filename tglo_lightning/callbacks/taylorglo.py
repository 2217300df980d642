"""The callback that metalearns the loss of a module before it is trained."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from tglo_lightning._version import __version__
from tglo_lightning.arguments import choice, flag
from tglo_lightning.callbacks.attraction import AttractionMonitor
from tglo_lightning.callbacks.curves import CurveRecorder
from tglo_lightning.callbacks.progress import SearchMonitor
from tglo_lightning.callbacks.recording import Recording, evaluator_name
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
from tglo_lightning.evaluation.auto import EVALUATORS, check_evaluator
from tglo_lightning.evaluation.bases import CALLBACKS, Callback
from tglo_lightning.evaluation.identity import digest, sources
from tglo_lightning.evaluation.initial import INITS, check_resettable
from tglo_lightning.evaluation.inner import Minimum, data_arguments
from tglo_lightning.evaluation.isolation import isolated, preserved
from tglo_lightning.evaluation.messages import tell
from tglo_lightning.evaluation.slot import LossSlots
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.reporting.html.fit import Fit
from tglo_lightning.reporting.stats import welch
from tglo_lightning.search import Finalist, SearchResult, SearchSettings, search
from tglo_lightning.search.interruption import InterruptibleEvaluator, interruptible
from tglo_lightning.search.loop import MODES
from tglo_lightning.search.record import JOURNAL, result_path
from tglo_lightning.wording import counted

__all__ = ["TaylorGLO"]

# Below it a difference counts as one, in words; what is kept is decided by the means
LEVEL = 0.05
# Words in the names of metrics
LOWER_IS_BETTER = {"loss", "error", "err", "nll", "brier", "ece", "perplexity", "mse", "mae"}
HIGHER_IS_BETTER = {"acc", "accuracy", "f1", "auc", "auroc", "map", "miou", "iou", "dice", "precision", "recall"}
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
            smoothing and a factor, the fair baseline of both.
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
        candidate_timeout: seconds that a candidate may train and validate, as many for each where they train in one
            pass. It is looked at after every batch; a worker process that hangs is killed. The original loss has no
            limit.
        min_fitness_after: ``(n, value)``: a candidate is given up if ``monitor`` is worse than ``value`` after ``n``
            epochs, or after ``n`` optimizer steps where ``candidate_steps`` is given. Where candidates train in one
            pass, all train to there, and those that are good enough start again.
        journal: file that every finished training is written to, in JSON lines. By default ``search.jsonl`` in a
            directory below the Trainer's ``default_root_dir``, ``tglo/...``, whose name stands for all that the
            search depends on. Of a journal that is named here another search is refused. The result is written beside
            it, as ``.json``.
        resume: ``"auto"``: a search that was killed goes on from its journal when the same fit is started again, with
            the same result as if it had not been; one that was finished is not repeated. ``False``: search anew, with
            a journal at another place.
        report: write ``report.html`` beside the journal when the search ends, and again when the fit has ended, with
            the curves of its training and, where an ``AttractionMonitor`` watches it, with the attraction of its
            samples. The first takes some 0.3 s, the second 0.1 s; ``tglo-report`` writes it anew when there is more.
            Needs ``pip install 'tglo-lightning[plots]'``.

    Attributes:
        result: the :class:`~tglo_lightning.search.SearchResult`, ``None`` before the search.
        directory: where the search is written to; ``None`` before it, and where nothing could be written.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range; at the start of ``fit``, before any
            training: a module without that loss, a ``training_step`` that does not call it, an unknown ``monitor``, a
            journal that is damaged, in use or another search's, a strategy that shards the module (FSDP, DeepSpeed) or
            trains in child processes (``ddp_spawn``).
        ImportError: ``evaluator="ray"`` without Ray.
        SearchError: during the search, no candidate of a generation could be trained.
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
        constraint: Callable[[list[float]], bool] | str | None = "exact",
        parameterization: str = "minimal",
        init: Callable[[], Any] | str = "given",
        seed: int = 0,
        candidate_callbacks: Sequence[Any] = (),
        evaluator: Any = "auto",
        candidate_timeout: float | None = None,
        min_fitness_after: tuple[int, float] | None = None,
        journal: str | PathLike[str] | None = None,
        resume: str | bool = "auto",
        report: bool = True,
    ) -> None:
        super().__init__()
        self.slots = LossSlots(loss)
        if not isinstance(monitor, str) or not monitor:
            raise TypeError(f"`monitor` must be the name of a logged metric, got {monitor!r}.")
        choice("mode", mode, MODES)
        _doubt_direction(monitor, mode)
        if not callable(init):
            choice("init", init, INITS, " or a function that builds a module")
        self._one_epoch = candidate_epochs is None and candidate_steps is None
        if self._one_epoch:
            candidate_epochs = 1
        self.monitor = monitor
        self.mode = mode
        minimum = None if min_fitness_after is None else _minimum(min_fitness_after, mode)
        self.budget = Budget(candidate_epochs, candidate_steps, candidate_timeout, minimum)
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
        if journal is not None and (not isinstance(journal, str | PathLike) or not str(journal)):
            raise TypeError(f"`journal` must be the path of a file, got {journal!r}.")
        self.journal = None if journal is None else Path(journal)
        if self.journal is not None and self.journal.suffix == ".json":
            raise ValueError(f"`journal` must not end in .json, for the result goes there; got {str(journal)!r}.")
        if self.journal is not None and self.journal.is_dir():
            raise ValueError(
                f"`journal` must be the path of a file, and {str(journal)!r} is a directory: {self.journal / JOURNAL}?"
            )
        if resume is not False and resume != "auto":
            raise ValueError(f"`resume` must be 'auto' or False, got {resume!r}.")
        self.resume = resume
        self.report = flag("report", report)
        self.directory: Path | None = None
        self.result: SearchResult | None = None
        self._hooks: list[Any] = []
        # For the report: what the fit that follows the search logs, and where the search's files are
        self._recorder: CurveRecorder | None = None
        self._journal: Path | None = None

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
        # An earlier fit that failed has not come to its end
        self._recorder = None
        if trainer.fast_dev_run:
            tell("TaylorGLO: `fast_dev_run` skips the search; the module keeps its loss.")
            return
        if self.result is None:
            self.result = self._search(trainer, pl_module)
            # On every rank, though the first alone writes: they compute the metrics together
            self._recorder = CurveRecorder() if self.report else None
        for module in _copies(trainer, pl_module):
            self._install(module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the module has logged, for the report."""
        if self._recorder is not None:
            self._recorder.on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the report again, now that there is more to tell."""
        recorder, self._recorder = self._recorder, None
        if recorder is None or self._journal is None or not trainer.is_global_zero or not recorder.epochs:
            return
        assert self.result is not None
        watched = {c.slot.path: c.path for c in trainer.callbacks if isinstance(c, AttractionMonitor) and c.path}
        if len(watched) == 1:
            watched = {"this training": next(iter(watched.values()))}
        limits = {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps}
        fit = Fit(self.result.kept, recorder.curves, watched, limits, data_arguments(trainer))
        report_quietly(result_path(self._journal), fit)

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
        if self._one_epoch and trainer.max_epochs != 1:
            tell(
                "TaylorGLO: candidates train for 1 epoch, for neither `candidate_epochs` nor `candidate_steps` is "
                f"given; this fit has max_epochs={trainer.max_epochs}. A loss that is good early need not be so at its "
                "end."
            )
        fit = InnerFit(trainer, pl_module, self.slots, self.monitor, self.budget, self.init, self.candidate_callbacks)
        # Whatever draws random numbers on the way, the outer fit goes on as if it had not
        with interruptible() as check, isolated(quiet=False), preserved(fit.generators), Ranks(trainer) as ranks:
            seen = probe(fit)
            ranks.agree("The data", digest(seen.identity["data"]))
            if ranks.leads:
                result = self._scored(trainer, fit, seen, ranks, check)
                ranks.finish(result.to_dict())
            else:
                result = SearchResult.from_dict(self._scored_elsewhere(fit, ranks, check))
        tell(_verdict(result))
        return result

    def _scored_elsewhere(self, fit: InnerFit, ranks: Ranks, check: Callable[[], None]) -> Any:
        """The result of the search that another rank leads."""
        name = ranks.evaluator()
        evaluator = choose_evaluator(name if isinstance(self.evaluator, str) else self.evaluator, fit, 1)
        try:
            return ranks.follow(InterruptibleEvaluator(evaluator, check))
        finally:
            evaluator.close()

    def _scored(
        self, trainer: Any, fit: InnerFit, seen: Probe, ranks: Ranks, check: Callable[[], None]
    ) -> SearchResult:
        recording = self._recording(trainer, fit, seen)
        asked = self.evaluator
        if asked == "auto" and recording.evaluator in EVALUATORS:
            # A search that goes on keeps what it began with
            asked = recording.evaluator
        share = math.ceil(self.settings.population / ranks.size)
        try:
            evaluator = ranks.spread(choose_evaluator(asked, fit, share, processes=ranks.size == 1))
        except (KeyboardInterrupt, SystemExit):
            tell("TaylorGLO: interrupted before the search began.")
            raise
        check()
        name = evaluator_name(evaluator)
        try:
            options = fit.slots.options(fit.module)
            notes = {"versions": _versions(trainer), "original_options": options, "inputs": seen.inputs}
            with recording.of(evaluator, self.settings, notes, check) as recorded:
                self._journal = recording.journal
                self.directory = None if recording.journal is None else recording.journal.parent
                result = self._followed(trainer, fit, seen, recorded)
        finally:
            evaluator.close()
        result.settings |= {"evaluator": name, "original_options": options}
        _doubt_seeds(result, self.init)
        recording.save(result)
        if self.report and recording.journal is not None:
            path = report_quietly(result_path(recording.journal))
            if path is not None:
                tell(f"TaylorGLO: the report of the search is {path}; the end of this fit completes it.")
        return result

    def _followed(self, trainer: Any, fit: InnerFit, seen: Probe, evaluator: Any) -> SearchResult:
        with SearchMonitor(trainer, self.settings, self.monitor) as listener:
            result = search(
                evaluator,
                self.settings,
                num_classes=seen.num_classes,
                monitor=self.monitor,
                mode=self.mode,
                original_name=fit.slots.name(fit.module),
                listener=listener,
            )
            listener.log(_outcome(result), self.settings.generations - 1)
        return result

    def _recording(self, trainer: Any, fit: InnerFit, seen: Probe) -> Recording:
        """The files of this search; other ranks than the first write none."""
        path: Path | None = self.journal or Path(trainer.default_root_dir)
        if not trainer.is_global_zero or (self.journal is None and "://" in str(trainer.default_root_dir)):
            path = None
        identity = {
            "settings": self.settings.to_dict(),
            "loss": self.slots.paths,
            "original": fit.slots.name(fit.module),
            "monitor": self.monitor,
            "mode": self.mode,
            "budget": asdict(self.budget),
            "init": self.init if isinstance(self.init, str) else "function",
            "constraint": sources([self.settings.constraint]) if callable(self.settings.constraint) else {},
            "classes": seen.num_classes,
            **seen.identity,
        }
        resume = self.resume == "auto"
        return Recording(path, identity, self.evaluator, named=self.journal is not None, resume=resume)

    def _install(self, pl_module: Any) -> None:
        result = self.result
        if result is None or result.kept != "metalearned" or result.best is None or result.best.theta is None:
            return
        if not self.slots.holds(pl_module, result.best.theta):
            self.slots.install(pl_module, result.best.theta)


def _doubt_direction(monitor: str, mode: str) -> None:
    """Warn where the metric's name speaks against ``mode``: such a search finds the worst loss, and believes in it."""
    words = set(re.split("[^a-z0-9]+", monitor.lower()))
    better = "min" if words & LOWER_IS_BETTER else "max" if words & HIGHER_IS_BETTER else mode
    if better != mode:
        warnings.warn(
            f"`monitor={monitor!r}` sounds like a metric to be searched with mode={better!r}; this search has "
            f"mode={mode!r}.",
            stacklevel=3,
        )


def _doubt_seeds(result: SearchResult, init: Any) -> None:
    """Warn of finals in which no seed made a difference."""
    if result.seeds_matter:
        return
    cure = ", or pass init='reset' for weights of their own" if init == "given" else ""
    warnings.warn(
        f"Each finalist, and the original loss, had the same {result.monitor} from {len(result.original.fitness)} "
        "seeds: nothing in this training depends on the seed, and the comparison counts as a single training. Shuffle "
        f"the training data{cure}.",
        stacklevel=3,
    )


def _minimum(given: Sequence[Any], mode: str) -> Minimum:
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
        raise TypeError(f"`min_fitness_after` must be a pair (n, value), got {given!r}.")
    after, value = given
    return Minimum(after, value, mode)  # checked with the budget


def _versions(trainer: Any) -> dict[str, str]:
    packages = VERSIONS if type(trainer).__module__.startswith("pytorch_lightning") else (*VERSIONS, "lightning")
    return {"tglo-lightning": __version__, **{name: version(name) for name in packages}}


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
        n = len(finalist.fitness)
        return f"{finalist.mean:.4g}{f' +- {finalist.std:.2g}' if n > 1 else ''} (n={n})"

    against = f"{result.original.name} {figures(result.original)}"
    p_value = (
        None
        if result.best is None
        else welch(result.best.fitness, result.original.fitness, "greater" if result.mode == "max" else "less")
    )
    chance = "" if p_value is None else f", Welch's one-sided p = {p_value:.2g}"
    better = f"{result.monitor} ({'higher' if result.mode == 'max' else 'lower'} is better)"
    trained = f"{counted(result.candidates, 'candidate')}, {result.failed} failed, "
    trained += f"{counted(result.infeasible, 'infeasible draw')}, {result.seconds:.0f} s"
    if result.original.errors:
        return (
            "TaylorGLO kept the original loss: it could not be compared, for of its "
            f"{counted(len(result.original.fitness), 'training')} {len(result.original.errors)} failed "
            f"({result.original.errors[0]}); {trained}."
        )
    if result.best is None:
        return f"TaylorGLO kept the original loss: no finalist could be trained from every seed. {against}; {trained}."
    if result.kept == "original":
        return (
            f"TaylorGLO kept the original loss: no finalist beat it on {better}. {against}, best finalist "
            f"{figures(result.best)}{chance}; {trained}."
        )
    settled = p_value is not None and p_value < LEVEL
    beats = "beats the original" if settled else "has a better mean than the original, which may be chance,"
    return (
        f"TaylorGLO: the metalearned loss {beats} on {better}: {figures(result.best)} against "
        f"{against}{chance}; {trained}.\n  f(y, h) = {result.best.formula}"
    )
