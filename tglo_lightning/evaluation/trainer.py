"""Score candidates with nested Trainers: the reference, valid for whatever Lightning can train."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.evaluation.inner import InnerFit, scale_optimizers
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.limits import Clock, Diverged, failed
from tglo_lightning.evaluation.pausing import Pausable
from tglo_lightning.evaluation.resuming import Memory, load_training, noted_training, set_progress, tensors
from tglo_lightning.evaluation.validation import seed_validation, validated
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.loaders import generators
from tglo_lightning.module.preserving import saved_attributes
from tglo_lightning.search import Criterion, Evaluation
from tglo_lightning.search.seeding import derived_seed, saved_states, seed_all

__all__ = ["TrainerEvaluator", "TrainerPopulation"]

# Weights of ended trainings from which on their memory is freed at once
COLLECTED_BYTES = 2**24
EVERY = 16


class Training:
    """Members that train in one fit, here one, which can wait after any epoch or step.

    Args:
        fit: what is trained.
        criteria: criterion of each member.
        seed: seed of the training.

    Attributes:
        clock: measures the time.
        until: epochs or steps to pause after.
        pausable: runs the fit.
        module: the module in training; of one that ran in one go, until the next score is asked for.
        noted: what was noted at the start of this epoch, see :mod:`tglo_lightning.evaluation.resuming`.
        resumed: what another process noted, until the training has begun.
    """

    def __init__(self, fit: InnerFit, criteria: dict[int, Criterion], seed: int) -> None:
        self.fit, self.criteria, self.seed = fit, criteria, seed
        self.clock = Clock(fit.timeout(next(iter(criteria.values()))), len(criteria))
        self.until = fit.budget.length
        self.module: Any = None
        self.noted: dict[str, Any] | None = None
        self.resumed: dict[str, Any] | None = None
        self._fitness = float("nan")
        self._scores: dict[int, Evaluation] = {}
        self.pausable = Pausable(self._fit, fit.generators)

    def score(self, member: int, until: int) -> Evaluation:
        """Train until so many epochs or steps are done, and return the monitored metric after them."""
        self._update(until)
        return self._scores[member]

    def keep(self, members: set[int]) -> int:
        """End the training of the other members. Return the bytes of weights that this frees."""
        if members or self.module is None:
            return 0
        freed = sum(p.nbytes for p in self.module.parameters())
        self.close()
        return freed

    def weights(self, member: int) -> dict[str, Tensor]:
        """Return parameters and buffers of a member."""
        assert self.module is not None, "the training is over, and its memory free"
        return tensors(self.module)

    def state(self) -> dict[str, Any] | None:
        """Return what was noted at the start of this epoch, once; or the scores of members that have failed."""
        if self._scores and self.until >= self.fit.budget.length:
            return {"scores": {member: score.to_dict() for member, score in self._scores.items()}}
        noted, self.noted = self.noted, None
        return noted

    def restore(self, state: dict[str, Any]) -> None:
        """Begin with what :meth:`state` has returned."""
        if "scores" in state:
            self._scores = {member: Evaluation.from_dict(score) for member, score in state["scores"].items()}
            self.until = self.fit.budget.length
        else:
            self.resumed = state

    def free(self, member: int) -> None:
        """Free the memory of a training that ran in one go."""
        if self.pausable.alone:
            self.close()

    def close(self) -> None:
        """End the training, and free its memory."""
        self.pausable.close()
        self.pausable = Pausable(self._fit, self.fit.generators)
        self.module = self.noted = None

    def pause(self, fitness: float) -> None:
        """Wait in the midst of the fit, with this score."""
        self._fitness = fitness
        self.pausable.pause()

    def note(
        self, trainer: Any, memory: Memory | None, values: Callable[[], Mapping[str, Tensor]], **rest: Any
    ) -> None:
        """At the start of an epoch, note what the training is made of, if it may be asked for and is known."""
        in_steps, epoch = self.fit.budget.steps is not None, trainer.current_epoch
        if memory is not None and epoch > 0 and (in_steps or epoch == self.until):
            trained = trainer.global_step if in_steps else epoch
            self.noted = noted_training(trainer, values(), trained=trained, **rest) if memory.unchanged else None

    def _update(self, until: int) -> None:
        """Train and score the members, unless they have come so far, or failed."""
        if self._scores and until <= self.until:
            return
        self.until = until
        try:
            with isolated(self.fit.generators), self.clock.running():
                self._scores = self._advance()
        except Exception as error:
            self.close()
            self._scores = self._rescued(error)

    def _advance(self) -> dict[int, Evaluation]:
        self.pausable.resume(to_end=self.until >= self.fit.budget.length)
        return dict.fromkeys(self.criteria, Evaluation(self._fitness, "ok", self.clock.seconds))

    def _rescued(self, error: Exception) -> dict[int, Evaluation]:
        """Return the scores after an error."""
        self.until = self.fit.budget.length
        return dict.fromkeys(self.criteria, failed(error, self.clock.seconds))

    def _fit(self) -> None:
        """Run the whole fit, with its pauses, and the validation after it."""
        fit = self.fit
        (criterion,) = self.criteria.values()
        self.module = fit.candidate(criterion, self.seed)
        trainer = fit.trainer(Guard(self))
        seed_all(self.seed, fit.generators)
        trainer.fit(self.module, **fit.data())
        if not all(torch.isfinite(parameter).all() for parameter in self.module.parameters()):
            raise Diverged("a weight is not finite after the training")
        metrics = validated(trainer, self.module, fit, self.seed)
        if fit.monitor not in metrics:
            raise KeyError(f"{fit.monitor!r} was not logged")
        self._fitness = float(metrics[fit.monitor])


class Guard(Callback):
    """Seeds every epoch, ends a training that cannot come to anything, and lets it wait halfway."""

    def __init__(self, training: Training) -> None:
        self.training, self.fit, self.pausable = training, training.fit, training.pausable
        self._due = self._extra = False
        self._logged: dict[str, Any] = {}
        self._gradients: list[tuple[Any, Any]] = []
        self._memory: Memory | None = None
        self._resumed, training.resumed = training.resumed, None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        (criterion,) = self.training.criteria.values()
        if criterion.step != 1:
            scale_optimizers(trainer, criterion.step)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        usual, validate = loop._should_check_val_fx, loop.val_loop.run
        seed_validation(loop.val_loop, pl_module, self.fit, self.training.seed)

        def should_validate(fetcher: Any) -> bool:
            validates: bool = usual(fetcher)
            self._extra = self._due and not validates
            # Lightning drops them before it validates
            self._gradients = [(p, p.grad) for p in pl_module.parameters()] if self._extra else []
            return self._due or validates

        def run() -> None:
            # What follows must not depend on whether somebody has looked
            put_back = saved_states(self._generators(trainer, pl_module))
            restore = saved_attributes(pl_module) if self._extra else put_back
            validate()
            for parameter, gradient in self._gradients:
                parameter.grad = gradient
            self._gradients = []
            restore()
            put_back()
            if self.fit.budget.steps is not None:
                self._pause(trainer)

        loop._should_check_val_fx, loop.val_loop.run = should_validate, run
        if self._resumed is not None:
            self._go_on_after_start(trainer, self._resumed)

    def _go_on_after_start(self, trainer: Any, resumed: dict[str, Any]) -> None:
        """Set the counters once the module has done what it does at the start of a training."""
        start = trainer.fit_loop.on_advance_start

        def begin() -> None:
            trainer.fit_loop.on_advance_start = start
            set_progress(trainer, **resumed["progress"])
            start()

        trainer.fit_loop.on_advance_start = begin

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self._memory is None and self.fit.notes:
            self._memory = Memory(trainer, pl_module)
        if self._resumed is None:
            gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            own = not pl_module.automatic_optimization
            values = partial(tensors, pl_module)
            self.training.note(trainer, self._memory, values, gradients=gradients if own else {})
        else:
            load_training(trainer, self._resumed, tensors(pl_module))
            for name, gradient in self._resumed["gradients"].items():
                parameter = pl_module.get_parameter(name)
                parameter.grad = gradient.to(parameter.device)
            self._resumed = None
        self._pause(trainer)
        # The copy of the module, and loaders that were made for this fit, have generators of their own
        seed_all(derived_seed(self.training.seed, trainer.current_epoch), self._generators(trainer, pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._check()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Looking at every loss would wait for the device at every step
        if batch_idx % EVERY == 0 and isinstance(loss, Tensor) and not torch.isfinite(loss).all():
            raise Diverged(f"the loss is {loss.detach().mean().item()} at step {trainer.global_step}")
        until = self.training.until
        if until >= self.fit.budget.length:
            return
        if self.fit.budget.steps is None:
            last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            self._due = last and trainer.current_epoch + 1 == until
        else:
            self._due = trainer.global_step >= until
            if self._due:
                # Once a validation has begun, Lightning no longer knows what the training has logged
                self._logged = dict(trainer.callback_metrics)
                if not trainer.enable_validation:
                    self._pause(trainer)

    def on_validation_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self._check()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._logged = dict(trainer.callback_metrics)

    def _pause(self, trainer: Any) -> None:
        if self._due:
            self._due = False
            self.training.pause(float((self._logged | trainer.callback_metrics).get(self.fit.monitor, float("nan"))))

    def _check(self) -> None:
        self.training.clock.check()
        self.pausable.check()

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
        trainings = [Training(self.fit, {index: each}, seed) for index, each in enumerate(criteria)]
        return TrainerPopulation(self.fit.budget.length, trainings)


class TrainerPopulation:
    """Fits that wait for one another; see :class:`~tglo_lightning.search.Population`.

    A training that is advanced to its end at once runs in one go and is gone before the next one starts; its weights
    can be asked for until then. Those of a training that has waited can be asked for until it is let go.
    """

    def __init__(self, length: int, trainings: Sequence[Training]) -> None:
        self.length, self.trained = length, 0
        # Where members were let go last
        self._let_go = 0
        self.trainings = {member: training for training in trainings for member in training.criteria}
        self.members = sorted(self.trainings)

    def advance(self, n: int) -> None:
        """Let each member train on for ``n`` epochs or steps, once scores are asked for."""
        self.trained = min(self.trained + n, self.length)

    def scores(self) -> Iterator[Evaluation]:
        """Train and validate the members, one after the other."""
        for member in self.members:
            yield self.trainings[member].score(member, self.trained)
            self.trainings[member].free(member)

    def keep(self, members: Sequence[int]) -> None:
        """End the other trainings."""
        if len(members) < len(self.members):
            self._let_go = self.trained
        self.members = sorted(members)
        kept: dict[Training, set[int]] = {training: set() for training in self.trainings.values()}
        for member in members:
            kept[self.trainings[member]].add(member)
        if sum(training.keep(own) for training, own in kept.items()) >= COLLECTED_BYTES:
            # A Trainer and its module refer to each other; to look through all objects takes half a second
            gc.collect()

    def weights(self, member: int) -> dict[str, Tensor]:
        """Return parameters and buffers of a member."""
        return self.trainings[member].weights(member)

    def state(self) -> dict[str, Any] | None:
        """Return what was noted at the start of this epoch, if the members were the same then."""
        states = [training.state() for training in self._kept]
        trained = {state["trained"] for state in states if state is not None and "trained" in state}
        if None in states or len(trained) != 1 or self._let_go > (start := trained.pop()):
            return None
        return {"trained": start, "members": self.members, "trainings": states}

    def restore(self, state: dict[str, Any]) -> None:
        """Begin with what :meth:`state` has returned."""
        trainings = state["trainings"]
        self.trained, self.members = state["trained"], state["members"]
        for training, noted in zip(self._kept, trainings, strict=True):
            training.restore(noted)
        self.keep(self.members)

    @property
    def _kept(self) -> list[Training]:
        return list(dict.fromkeys(self.trainings[member] for member in self.members))

    def close(self) -> None:
        """End all trainings."""
        self.keep([])
