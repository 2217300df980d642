"""A race within a fit: how long it trains, where its networks lie, and how the fit ends as if it had trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.callbacks.progress import hides_bars, log_outcome
from tglo_lightning.callbacks.search_attraction import SearchAttraction
from tglo_lightning.evaluation import InnerFit
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.limits import brief
from tglo_lightning.evaluation.resuming import set_progress, write
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.copies import copies_of
from tglo_lightning.module.messages import tell
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.loggers import boards, draw
from tglo_lightning.reporting.results import original_name
from tglo_lightning.search import Budget, Criterion, Journal, Objective, Race, SearchResult, SearchSettings
from tglo_lightning.search.progress import Bar
from tglo_lightning.search.racing import Raced, confirm, race

__all__ = ["FinishedFit", "RaceMonitor", "check_race", "raced_fit", "run_race", "tell_limits"]

# Callbacks of Lightning's that change a training; the members of a race never meet those of the outer Trainer
CHANGING = {
    *("BaseFinetuning", "GradientAccumulationScheduler", "ModelPruning", "StochasticWeightAveraging", "WeightAveraging")
}


def check_race(callbacks: Iterable[Any], ckpt_path: Any = None) -> None:
    """Check that a race can stand for the training of a fit with these callbacks of the Trainer.

    Raises:
        ValueError: a callback that changes the training, or a part of the training that a checkpoint holds already.
    """
    for callback in callbacks:
        if CHANGING.intersection(kind.__name__ for kind in type(callback).__mro__):
            name = type(callback).__name__
            raise ValueError(
                f"A race trains its networks without the callbacks of this Trainer, so {name} would change nothing. "
                f"Pass it to them as one of the budget's: Budget(epochs=trainer.max_epochs, callbacks=[{name}(...)])."
            )
    if ckpt_path is not None:
        raise ValueError(
            f"A race is one training from its start, and this fit would go on from {ckpt_path}. Leave out "
            "`ckpt_path`; a race that was killed goes on by itself."
        )


def tell_limits(trainer: Any, module: Any) -> None:
    """Say in one line what a race leaves untrue of this fit, see ``docs/race.md``."""
    names = {kind.__name__ for callback in trainer.callbacks for kind in type(callback).__mro__}
    reduced = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
    limits = {
        "loggers get `race/*` in place of the epochs before the last": bool(trainer.loggers),
        "EarlyStopping sees one epoch": "EarlyStopping" in names,
        "ReduceLROnPlateau sees one epoch": reduced,
        "ModelCheckpoint saves no earlier epoch, and optimizers without their state": "ModelCheckpoint" in names,
        "`max_time` does not count the race": "Timer" in names,
        "`global_step` counts one step a batch": not module.automatic_optimization,
        "each member trains on one rank, with its batch size": trainer.world_size > 1,
    }
    if told := "; ".join(limit for limit, applies in limits.items() if applies):
        tell(f"TaylorGLO: this fit ends as a training of its length would, except that {told}.")


def raced_fit(trainer: Any, fit: InnerFit, settings: SearchSettings) -> tuple[InnerFit, SearchSettings]:
    """Return the fit, which has been probed, and the settings of a race that is as long as the outer fit.

    Raises:
        ValueError: the length of the fit is not known, or ``budget`` has another one; or what ``init`` builds has other
            parameters than the module.
    """
    strategy, given = settings.strategy, settings.budget
    assert isinstance(strategy, Race)
    if not math.isfinite(fit.epoch_batches):
        raise ValueError(
            "A race must know the number of batches of an epoch, and these training data have no length: set "
            "`limit_train_batches` of the Trainer."
        )
    per_epoch = fit.epoch_steps()
    steps = length_of(trainer, per_epoch)
    asked = given.length * (1 if given.epochs is None else per_epoch) if isinstance(given, Budget) else 0
    if isinstance(given, Budget) and asked not in (0, steps):
        raise ValueError(
            f"A race is as long as the fit, which has {steps} steps, and `budget` has {given.length} {given.unit}. "
            "Leave `budget` out, or give it the length of the fit."
        )
    epochs, rest = divmod(steps, per_epoch)
    # Otherwise there are not enough ends of epochs to check at
    whole = not rest and epochs >= strategy.count
    budget = given if isinstance(given, Budget) else Budget()
    budget = replace(budget, epochs=epochs if whole else None, steps=None if whole else steps)
    fit = fit.with_budget(budget).noting()
    if callable(fit.init):
        with isolated(fit.generators):
            network = fit.candidate(Criterion.original(), seed=0)
        ours, theirs = ({name: p.shape for name, p in m.named_parameters()} for m in (fit.module, network))
        if names := sorted({name for name, _ in ours.items() ^ theirs.items()}):
            raise ValueError(
                "The network of a race goes into the module, and what `init` builds differs from it in "
                f"{', '.join(names[:3])}."
            )
    return fit, replace(settings, budget=budget, generations=1, population=strategy.candidates(1, 0))


def length_of(trainer: Any, per_epoch: int) -> int:
    """Return the optimizer steps of a fit that has an end, with ``per_epoch`` of them in an epoch."""
    limits = [limit * size for limit, size in ((trainer.max_epochs, per_epoch), (trainer.max_steps, 1)) if limit > 0]
    return int(min(limits))


class RaceFile:
    """What a race is made of, on disk beside its journal until the fit has ended.

    Args:
        path: the file; ``None`` for none.
        journal: the journal of the race. A file beside one that holds nothing yet is not of this race.
    """

    def __init__(self, path: Path | None, journal: Journal | None) -> None:
        self.path = None if journal is None else path
        if self.path is not None and journal is not None and not journal.recorded:
            self.path.unlink(missing_ok=True)

    def load(self) -> dict[str, Any]:
        """Return what was saved last; nothing if there is none, or none that can be read."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            return dict(torch.load(self.path, map_location="cpu", weights_only=True))
        except Exception as error:
            warnings.warn(f"{self.path} cannot be read ({brief(error)}), so the race starts anew.", stacklevel=2)
            return {}

    def save(self, values: dict[str, Any]) -> None:
        """Write a file that is whole or not there; if that fails, a warning says so, and the race goes on without."""
        if self.path is None:
            return
        draft = self.path.with_name(f"{self.path.name}.tmp")
        try:
            torch.save(values, draft)
            draft.replace(self.path)
        except Exception as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            warnings.warn(
                f"{self.path} cannot be written ({brief(error)}), so a killed race starts anew.", stacklevel=2
            )
            self.path = None


def run_race(
    trainer: Any,
    evaluator: Any,
    settings: SearchSettings,
    objective: Objective,
    path: Path | None,
    *,
    journal: Journal | None,
    check: Callable[[], None],
    attraction: SearchAttraction | None = None,
) -> tuple[SearchResult, dict[str, Tensor]]:
    """Race, unless ``path`` holds the network of this race; confirm its loss if that is asked for.

    Returns the result, and parameters and buffers of the network that won.
    """
    strategy = settings.strategy
    assert isinstance(strategy, Race)
    assert isinstance(settings.budget, Budget)
    file = RaceFile(path, journal)
    saved = file.load()
    if "result" in saved:
        raced = Raced(SearchResult.from_dict(saved["result"]), saved["weights"])
    else:
        if saved and attraction is not None:
            attraction.load_state_dict(saved["attraction"])
        if journal is not None and journal.recorded:
            start = f"{settings.budget.unit[:-1]} {saved['population']['trained']}" if saved else "its start"
            tell(f"TaylorGLO: the race goes on from {start}, and compares every check from there with the journal.")

        def save(state: dict[str, Any]) -> None:
            file.save({**state, "attraction": {} if attraction is None else attraction.state_dict()})

        with RaceMonitor(trainer, objective, len(strategy.checks(settings.budget.length))) as listener:
            look = None if attraction is None else attraction.measure
            rest: Any = {"journal": journal, "listener": listener, "check": check, "look": look, "saved": saved or None}
            raced = race(evaluator, settings, objective, **rest, save=None if file.path is None else save)
            listener.finish(raced.result, {} if attraction is None else raced_attraction(attraction, raced.result))
        file.save({"result": raced.result.to_dict(), "weights": raced.weights})
    result = raced.result
    if strategy.confirm:
        result = confirm(result, evaluator, settings, objective, journal=journal, check=check)
    log_outcome(boards(trainer), result, settings.budget.length)
    return result, raced.weights


def raced_attraction(attraction: SearchAttraction, result: SearchResult) -> dict[str, AttractionRecord]:
    """Return the records of the module's own loss and of the winner, and write them."""
    curves = result.curves
    assert curves is not None
    own = next(index for index, criterion in enumerate(curves.criteria) if criterion.is_original)
    return attraction.records({"original": own} | ({} if own == curves.winner else {"winner": curves.winner}))


class RaceMonitor(Bar):
    """Follows a race: a bar over its checks, ``race/*`` in every logger, and pictures of curves and attraction."""

    def __init__(self, trainer: Any, objective: Objective, checks: int) -> None:
        self.boards = boards(trainer)
        self.best = max if objective.mode == "max" else min
        super().__init__("Race", checks, "checks", objective.monitor, disable=hides_bars(trainer))

    def on_check(self, trained: int, values: Sequence[float]) -> None:
        """Move the bar on, and log the metric of every member."""
        finite = {index: value for index, value in enumerate(values, 1) if math.isfinite(value)}
        self.advance(self.best(finite.values()) if finite else math.nan)
        metrics = {f"race/member_{index}": value for index, value in finite.items()}
        for board in self.boards:
            board.log(metrics, "race/trained", trained, trained)

    def finish(self, result: SearchResult, attraction: Mapping[str, AttractionRecord]) -> None:
        """Log the pictures of a race that has ended."""
        if not self.boards:
            return
        draw(self.boards, "race/curves", lambda: pictures.race(result))
        curves = result.curves
        if attraction and curves is not None:
            original = original_name(result)
            names = {"original": original, "winner": curves.names(original)[curves.winner]}
            titled = {f"{kind}: {names[kind]}": record for kind, record in attraction.items()}
            draw(self.boards, "race/attraction", lambda: pictures.attraction(titled, curves.unit))


class FinishedFit(Callback):
    """Puts the network of a race into the module, and lets the fit end as a training of its length would.

    All counters stand where that training begins its last epoch. That epoch then runs as any other, with all hooks,
    metrics and loggers, but no step of an optimizer has an effect: what it logs, validates and saves is the network of
    the race. Learning rates follow their schedules. The state of the optimizers is that of a beginning.

    Args:
        trainer: the outer Trainer, at the start of its fit.
        module: the outer module, with the loss of the race in place.
        weights: parameters and buffers of the network, by name.
        done: file to delete when the fit has ended; ``None`` for none.
    """

    def __init__(self, trainer: Any, module: Any, weights: dict[str, Tensor], done: Path | None) -> None:
        self.done = done
        for copy in copies_of(module, trainer.callbacks):
            own = _tensors(copy)
            write({name: own[name] for name in own.keys() & weights.keys()}, weights)
        self._steps: list[tuple[Any, Any]] = []
        self._state = [(tensor, tensor.detach().clone()) for tensor in _tensors(module).values()]
        # First, so that the other callbacks see the network of the race; the list itself is being iterated over
        trainer.callbacks = [self, *trainer.callbacks]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Move the counters on to the last epoch, and make optimizers idle."""
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        epochs = (length_of(trainer, per_epoch) - 1) // per_epoch
        batches, steps = epochs * int(trainer.num_training_batches), epochs * per_epoch
        set_progress(trainer, epochs, batches, steps, manual_steps=steps, stepped=steps)
        self._steps = [(optimizer, vars(optimizer).get("step")) for optimizer in trainer.optimizers]
        for optimizer in trainer.optimizers:
            vars(optimizer)["step"] = _idle
            optimizer._opt_called = True
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau:
                continue
            passed = epochs * (per_epoch if config.interval == "step" else 1)
            for _ in range(passed // config.frequency):
                pl_module.lr_scheduler_step(config.scheduler, None)
        loop = trainer.fit_loop.epoch_loop
        usual = loop._should_check_val_fx
        # The end is validated, wherever it lies between two regular validations
        loop._should_check_val_fx = lambda fetcher: (
            usual(fetcher) or (loop._is_training_done and trainer.enable_validation)
        )

    @torch.no_grad()
    def on_train_epoch_end(self, *_: Any) -> None:
        """Put back what a pass changes, such as running means, or a hook of the module."""
        for tensor, value in self._state:
            if not torch.equal(tensor, value):
                tensor.copy_(value)

    on_train_batch_end: Any = on_train_epoch_end
    on_validation_start: Any = on_train_epoch_end

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the optimizers and the loop back."""
        self._release(trainer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Delete the file of the race."""
        if self.done is not None and trainer.is_global_zero:
            self.done.unlink(missing_ok=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the Trainer as it was."""
        self._release(trainer)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the Trainer."""
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self]

    def _release(self, trainer: Any) -> None:
        for optimizer, step in self._steps:
            if step is None:
                vars(optimizer).pop("step", None)
            else:
                # Where a schedule counts the steps
                vars(optimizer)["step"] = step
        self._steps = []
        vars(trainer.fit_loop.epoch_loop).pop("_should_check_val_fx", None)


def _idle(closure: Any = None) -> Any:
    """Stand for the step of an optimizer: run the pass, change nothing."""
    return None if closure is None else closure()


# Or a schedule would warn that its optimizer has been tampered with
_idle._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


def _tensors(module: Any) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])
