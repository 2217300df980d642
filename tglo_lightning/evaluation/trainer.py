"""Score candidates with nested Trainers: the reference, valid for whatever Lightning can train."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.evaluation.inner import InnerFit, scale_optimizers
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.limits import Clock, Diverged, failed
from tglo_lightning.evaluation.pausing import Pausable
from tglo_lightning.evaluation.validation import seed_validation, validated
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.loaders import generators
from tglo_lightning.module.preserving import saved_attributes
from tglo_lightning.search import Criterion, Evaluation
from tglo_lightning.search.seeding import derived_seed, saved_states, seed_all

__all__ = ["TrainerEvaluator", "TrainerPopulation"]

# Weights of ended trainings from which on their memory is freed at once
COLLECTED_BYTES = 2**24


class Guard(Callback):
    """Seeds every epoch, ends a training that cannot come to anything, and lets it wait halfway.

    Args:
        step: factor on the learning rates.
        clock: measures the time; by default there is no limit.
        pause: called with the monitored metric, NaN if unknown, when the training has come to :attr:`until`.
        check: called after every batch; raises if nobody waits for the training any more.

    Attributes:
        until: epochs or steps to pause after; ``None`` to train to the end.
    """

    EVERY = 16

    def __init__(
        self,
        seed: int,
        fit: InnerFit,
        step: float = 1.0,
        clock: Clock | None = None,
        pause: Callable[[float], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.seed = seed
        self.fit = fit
        self.step = step
        self.clock = Clock() if clock is None else clock
        self.pause = pause
        self.check = check
        self.until: int | None = None
        self._due = self._extra = False
        self._logged: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.step != 1:
            scale_optimizers(trainer, self.step)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        usual, validate = loop._should_check_val_fx, loop.val_loop.run
        seed_validation(loop.val_loop, pl_module, self.fit, self.seed)

        def should_validate(fetcher: Any) -> bool:
            validates: bool = usual(fetcher)
            self._extra = self._due and not validates
            return self._due or validates

        def run() -> None:
            # What follows must not depend on whether somebody has looked
            put_back = saved_states(self._generators(trainer, pl_module))
            restore = saved_attributes(pl_module) if self._extra else put_back
            validate()
            restore()
            put_back()
            if self.fit.budget.steps is not None:
                self._pause(trainer)

        loop._should_check_val_fx, loop.val_loop.run = should_validate, run

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        # The copy of the module, and loaders that were made for this fit, have generators of their own
        seed_all(derived_seed(self.seed, trainer.current_epoch), self._generators(trainer, pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.clock.check()
        self.check()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Looking at every loss would wait for the device at every step
        if batch_idx % self.EVERY == 0 and isinstance(loss, Tensor) and not torch.isfinite(loss).all():
            raise Diverged(f"the loss is {loss.detach().mean().item()} at step {trainer.global_step}")
        if self.until is None:
            return
        if self.fit.budget.steps is None:
            last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            self._due = last and trainer.current_epoch + 1 == self.until
        else:
            self._due = trainer.global_step >= self.until
            if self._due:
                # Once a validation has begun, Lightning no longer knows what the training has logged
                self._logged = dict(trainer.callback_metrics)
                if not trainer.enable_validation:
                    self._pause(trainer)

    def on_validation_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.check()
        self.check()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._pause(trainer)

    def _pause(self, trainer: Any) -> None:
        if self._due and self.pause is not None:
            self._due = False
            self.pause(float((self._logged | trainer.callback_metrics).get(self.fit.monitor, float("nan"))))

    def _generators(self, trainer: Any, module: Any) -> list[Any]:
        return [*self.fit.generators, *generators(module, trainer.train_dataloader)]


class TrainerEvaluator:
    """Trains each candidate with a fresh Trainer on a fresh copy of the module, one after the other.

    Before each training every random generator is seeded with the same number, and again at each epoch, so candidates
    share initial weights, batches, augmentation and dropout.
    """

    name = "trainer"
    shares_passes = False
    fit: InnerFit

    def setup(self, fit: InnerFit) -> None:
        """Take on a search."""
        self.fit = fit

    def close(self) -> None:
        """Let go of what the search held."""
        vars(self).pop("fit", None)

    def start(self, criteria: Sequence[Criterion], seed: int) -> TrainerPopulation:
        """Start a training for each criterion."""
        return TrainerPopulation(self.fit, criteria, seed)


class TrainerPopulation:
    """Nested fits that wait for one another; see :class:`~tglo_lightning.search.Population`.

    A training that is advanced to its end at once runs in one go and is gone before the next one starts; its weights
    can be asked for until then. Those of a training that has waited can be asked for until it is let go.
    """

    def __init__(self, fit: InnerFit, criteria: Sequence[Criterion], seed: int) -> None:
        self.length = fit.budget.length
        self.trained = 0
        self.members = list(range(len(criteria)))
        self._trainings = [_Training(fit, criterion, seed) for criterion in criteria]

    def advance(self, n: int) -> None:
        """Let each member train on for ``n`` epochs or steps, once scores are asked for."""
        self.trained = min(self.trained + n, self.length)

    def scores(self) -> Iterator[Evaluation]:
        """Train and validate the members, one after the other."""
        for member in self.members:
            training = self._trainings[member]
            yield training.score(self.trained)
            if training.at_once:
                training.close()

    def keep(self, members: Sequence[int]) -> None:
        """End the other trainings."""
        ended = [self._trainings[member] for member in self.members if member not in members]
        modules = (training.module for training in ended if training.module is not None)
        freed = sum(p.nbytes for module in modules for p in module.parameters())
        for training in ended:
            training.close()
        self.members = sorted(members)
        if freed >= COLLECTED_BYTES:
            # A Trainer and its module refer to each other; to look through all objects takes half a second
            gc.collect()

    def weights(self, member: int) -> dict[str, Tensor]:
        """Return parameters and buffers of a member; of one that ran in one go, until the next score is asked for."""
        module = self._trainings[member].module
        assert module is not None, "the training is over, and its memory free"
        return {name: value.detach() for name, value in (*module.named_parameters(), *module.named_buffers())}

    def close(self) -> None:
        """End all trainings."""
        self.keep([])


class _Training:
    """One candidate's training, which can wait after any epoch or step."""

    def __init__(self, fit: InnerFit, criterion: Criterion, seed: int) -> None:
        self.fit, self.criterion, self.seed = fit, criterion, seed
        self.clock = Clock(fit.timeout(criterion))
        self.module: Any = None
        self._pausable: Pausable | None = None
        self._guard: Guard | None = None
        self._put_back: Callable[[], None] | None = None
        self._fitness = float("nan")
        # Epochs or steps to train until, ``None`` for all, and the score at the last such point
        self._until: int | None = 0
        self._last: Evaluation | None = None

    def score(self, until: int) -> Evaluation:
        """Train until so many epochs or steps are done, and return the monitored metric after them."""
        if self._last is not None and self._until in (until, None):
            return self._last
        self._until = None if until >= self.fit.budget.length else until
        try:
            with isolated(self.fit.generators), self.clock.running():
                self._advance()
            self._last = Evaluation(self._fitness, "ok", self.clock.seconds)
        except Exception as error:
            self._last, self._until = failed(error, self.clock.seconds), None
            self.close()
        return self._last

    @property
    def at_once(self) -> bool:
        """Whether the training has run to its end in one go."""
        return self._until is None and self._pausable is None

    def close(self) -> None:
        """End the training, and free its memory."""
        if self._pausable is not None:
            with isolated(self.fit.generators):
                self._pausable.close()
        self._pausable = self._guard = self.module = self._put_back = None

    def _advance(self) -> None:
        if self._until is None and self._pausable is None:
            self._fit()
            return
        if self._pausable is None:
            self._pausable = Pausable(self._fit)
        if self._guard is not None:
            self._guard.until = self._until
        if self._put_back is not None:
            self._put_back()
        self._pausable.resume()
        self._put_back = saved_states(self.fit.generators)

    def _fit(self) -> None:
        """Run the whole fit, with its pauses, and the validation after it."""
        fit = self.fit
        self.module = fit.candidate(self.criterion, self.seed)
        check = (lambda: None) if self._pausable is None else self._pausable.check
        self._guard = Guard(self.seed, fit, self.criterion.step, self.clock, self._pause, check)
        self._guard.until = self._until
        trainer = fit.trainer(self._guard)
        seed_all(self.seed, fit.generators)
        trainer.fit(self.module, **fit.data())
        if not all(torch.isfinite(parameter).all() for parameter in self.module.parameters()):
            raise Diverged("a weight is not finite after the training")
        metrics = validated(trainer, self.module, fit, self.seed)
        if fit.monitor not in metrics:
            raise KeyError(f"{fit.monitor!r} was not logged")
        self._fitness = float(metrics[fit.monitor])

    def _pause(self, fitness: float) -> None:
        assert self._pausable is not None
        self._fitness = fitness
        self._pausable.pause()
