"""Score a whole population in one pass: stacked parameters under ``torch.func.vmap``."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.arguments import integer, optional
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.limits import Clock, Diverged, TimedOut, brief, failed, out_of_memory
from tglo_lightning.evaluation.pausing import Pausable
from tglo_lightning.evaluation.trainer import TrainerPopulation
from tglo_lightning.evaluation.validation import validate_each
from tglo_lightning.evaluation.vectorized.compilation import CompiledGradients
from tglo_lightning.evaluation.vectorized.loop import PopulationLoop
from tglo_lightning.evaluation.vectorized.mixed import kinds_of, mix, takes_own
from tglo_lightning.evaluation.vectorized.vectorizable import NotVectorizable
from tglo_lightning.module import LossSlot
from tglo_lightning.search import Criterion, Evaluation
from tglo_lightning.search.seeding import saved_states, seed_all

__all__ = ["NotVectorizable", "VectorizedEvaluator"]


class VectorizedEvaluator:
    """Trains all candidates at once, each batch loaded, moved and augmented once.

    The parameters and buffers of the candidates are stacked, and ``training_step`` is mapped over the stack by
    :func:`torch.func.vmap`; the parameters of the loss are a buffer like any other. Optimizer, parameter groups,
    schedules, gradient clipping and accumulation are those of the module and the outer Trainer; one elementwise
    optimizer step over the stack is one step for each candidate. An inner Trainer sets everything up, as for
    :class:`TrainerEvaluator`, and another one validates each candidate, so the fitness is the same up to float
    tolerance.

    Criteria of different families train in one pass too, in which all these losses are computed. The module's own loss
    trains apart if it is not of a known family, or if the others have a limit of time. What cannot be mapped trains by
    nested Trainers.

    Args:
        chunk_size: candidates in one pass; bounds the memory. By default what fits into half of the available memory.
        compile: compile the pass with :func:`torch.compile`, which takes some seconds at the first population; if that
            fails, a warning says so and the search goes on without.

    Raises:
        TypeError, ValueError: a wrong ``chunk_size``.
    """

    fit: InnerFit

    def __init__(self, *, chunk_size: int | None = None, compile: bool = False) -> None:
        self.chunk_size = optional(integer, "chunk_size", chunk_size, 1)
        self.compile = compile
        self.stochastic = False
        # Whether what cannot be mapped is an error, in place of a training by nested Trainers
        self.strict = False
        self.compiled: dict[tuple[Any, int], CompiledGradients] = {}

    @property
    def name(self) -> str:
        """``"vectorized"``, or ``"sequential"`` for a chunk size of 1: without Trainers, but one by one."""
        return "sequential" if self.chunk_size == 1 else "vectorized"

    @property
    def shares_passes(self) -> bool:
        """Whether candidates share passes, so that the last bits of a result depend on who trains beside it."""
        return self.chunk_size != 1

    def setup(self, fit: InnerFit) -> None:
        """Take on a search."""
        self.fit = fit
        self.compiled = {}

    def close(self) -> None:
        """Let go of what the search held."""
        self.compiled = {}
        vars(self).pop("fit", None)

    def start(self, criteria: Sequence[Criterion], seed: int) -> VectorizedPopulation:
        """Start a training for each criterion."""
        return VectorizedPopulation(self, criteria, seed)


class VectorizedPopulation:
    """Stacks of networks; see :class:`~tglo_lightning.search.Population`."""

    def __init__(self, evaluator: VectorizedEvaluator, criteria: Sequence[Criterion], seed: int) -> None:
        self.length = evaluator.fit.budget.length
        self.trained = 0
        self.members = list(range(len(criteria)))
        own = takes_own(evaluator.fit.slots, evaluator.fit.module)
        groups: dict[Any, list[int]] = {}
        for index, criterion in enumerate(criteria):
            # The module's own loss has no limit of time, and may be one that cannot be mapped
            apart = not criterion.losses and not (evaluator.fit.budget.timeout is None and own)
            groups.setdefault((apart, apart and criterion.is_original), []).append(index)
        self._stacks = {
            member: stack
            for members in groups.values()
            for stack in [_Stack(evaluator, {index: criteria[index] for index in members}, seed)]
            for member in members
        }

    def advance(self, n: int) -> None:
        """Let the members train on for ``n`` epochs or steps, once scores are asked for."""
        self.trained = min(self.trained + n, self.length)

    def scores(self) -> Iterator[Evaluation]:
        """Train and validate the members, one stack after the other."""
        for member in self.members:
            yield self._stacks[member].score(member, self.trained)

    def keep(self, members: Sequence[int]) -> None:
        """Take the other members out of their stacks."""
        self.members = sorted(members)
        for stack in set(self._stacks.values()):
            stack.keep([member for member in self.members if self._stacks[member] is stack])

    def weights(self, member: int) -> dict[str, Tensor]:
        """Return parameters and buffers of a member."""
        return self._stacks[member].weights(member)

    def close(self) -> None:
        """End the training of all stacks."""
        for stack in set(self._stacks.values()):
            stack.close()


class _Stack:
    """Candidates that train in one fit, which can wait after any epoch or step."""

    def __init__(self, evaluator: VectorizedEvaluator, criteria: dict[int, Criterion], seed: int) -> None:
        self.evaluator, self.fit, self.seed = evaluator, evaluator.fit, seed
        self.criteria = criteria
        self.clock = Clock(self.fit.timeout(next(iter(criteria.values()))), len(criteria))
        self.trained = 0
        self._ended = False
        self._scores: dict[int, Evaluation] = {}
        self._loop: PopulationLoop | None = None
        self._pausable: Pausable | None = None
        self._put_back: Any = None
        self._nested: TrainerPopulation | None = None
        # Of members that nested Trainers have trained to the end, on the CPU
        self._weights: dict[int, dict[str, Tensor]] = {}

    def score(self, member: int, until: int) -> Evaluation:
        """Train all members until so many epochs or steps are done; return the score of one."""
        if not self._scores or (until > self.trained and not self._ended):
            self._scores = self._all(until)
            self.trained = until
        return self._scores[member]

    def keep(self, members: Sequence[int]) -> None:
        """Take the other members out."""
        if self._nested is not None:
            order = list(self.criteria)
            self._nested.keep([order.index(member) for member in members])
        elif not members:
            self.close()
        elif self._loop is not None and len(members) < len(self._loop.members):
            self._loop.keep(members)
        self.clock.count = max(1, len(members))
        self._scores = {member: self._scores[member] for member in members if member in self._scores}
        if self._nested is None:
            self.criteria = {member: self.criteria[member] for member in members}

    def weights(self, member: int) -> dict[str, Tensor]:
        """Return parameters and buffers of a member."""
        if member in self._weights:
            return self._weights[member]
        if self._nested is not None:
            return self._nested.weights(list(self.criteria).index(member))
        assert self._loop is not None, "not trained yet"
        return self._loop.weights(member)

    def close(self) -> None:
        """End the training and free its memory."""
        if self._nested is not None:
            self._nested.close()
        if self._pausable is not None:
            with isolated(self.fit.generators):
                self._pausable.close()
        self._loop = self._pausable = self._put_back = None

    @property
    def _common(self) -> Criterion:
        """A criterion to begin with: that of all members but for their parameters, or the module's own."""
        first = next(iter(self.criteria.values()))
        return Criterion(first.losses if len(kinds_of(self.criteria.values())) == 1 else ())

    def _all(self, until: int) -> dict[int, Evaluation]:
        """Train and score the members; should that fail midway, by nested Trainers."""
        if self._nested is not None:
            return self._by_trainers(until)
        try:
            with isolated(self.fit.generators), self.clock.running():
                self._train(until)
                return self._validate()
        except TimedOut as error:
            self._ended = True
            self.close()
            return {member: failed(error, self.clock.seconds) for member in self.criteria}
        except NotVectorizable:
            if self.evaluator.strict:
                raise
        except Exception as error:
            self.close()
            if self.evaluator.strict:
                raise
            if self.evaluator.compile:
                warnings.warn(f"Going on uncompiled: {brief(error)}", stacklevel=2)
                self.evaluator.compile = False
                return self._all(until)
            warnings.warn(
                f"Training a population of {len(self.criteria)} failed with {brief(error)}. Its "
                "candidates are trained by nested Trainers.",
                stacklevel=2,
            )
        self.close()
        self._nested = TrainerPopulation(self.fit, list(self.criteria.values()), self.seed)
        return self._by_trainers(until)

    def _by_trainers(self, until: int) -> dict[int, Evaluation]:
        nested = self._nested
        assert nested is not None
        nested.advance(until - nested.trained)
        scores = {}
        for index, score in zip(nested.members, nested.scores(), strict=True):
            member = list(self.criteria)[index]
            scores[member] = score
            if score.ok and nested.trained == nested.length:
                # Its training is over once the next score is asked for
                self._weights[member] = {name: value.cpu().clone() for name, value in nested.weights(index).items()}
        return scores

    def _train(self, until: int) -> None:
        """Train until so many epochs or steps are done, in smaller chunks if there is not enough memory."""
        while True:
            try:
                if self._pausable is not None:
                    assert self._loop is not None
                    self._loop.until = until
                    self._put_back()
                    self._pausable.resume()
                elif until >= self.fit.budget.length:
                    self._fit(until)
                else:
                    self._pausable = Pausable(lambda: self._fit(until))
                    self._pausable.resume()
                self._put_back = saved_states(self.fit.generators)
                return
            except (RuntimeError, MemoryError) as error:
                size = 1 if self._loop is None else max((chunk.size for chunk in self._loop.chunks), default=1)
                if size == 1 or not out_of_memory(error):
                    raise
                # For the whole search: the next population is as large
                self.evaluator.chunk_size = size // 2
            self._loop = self._pausable = None
            # A Trainer refers to itself, and would hold its population's memory for a while
            gc.collect()

    def _fit(self, until: int) -> None:
        """Run the whole fit, with its pauses."""
        fit, evaluator = self.fit, self.evaluator
        module = fit.candidate(self._common, self.seed)
        if len(kinds_of(self.criteria.values())) > 1:
            mix(module, fit.slots, list(self.criteria.values()))
        loop = PopulationLoop(self.criteria, fit, self.seed, self.clock, evaluator.chunk_size, self._pausable)
        loop.compiled = evaluator.compiled if evaluator.compile else None
        loop.until = until
        self._loop = loop
        trainer = fit.trainer(loop)
        seed_all(self.seed, fit.generators)
        trainer.fit(module, **fit.data())
        evaluator.stochastic = loop.stochastic

    def _validate(self) -> dict[int, Evaluation]:
        """Score the members with their weights as they stand."""
        loop, fit = self._loop, self.fit
        assert loop is not None
        own: list[tuple[LossSlot, Any]] = []

        def load(module: Any, member: int) -> bool:
            self.clock.check()
            weights = loop.weights(member)
            if not own:
                own.extend((slot, slot.get(module)) for slot in fit.slots)
            if not self.criteria[member].losses:
                for slot, loss in own:
                    slot.set(module, loss)
            fit.slots.install(module, self.criteria[member])
            module.load_state_dict(weights, strict=False)
            return all(bool(torch.isfinite(weights[name]).all()) for name in loop.step.params)

        members = list(self.criteria)
        values = validate_each(fit, self._common, self.seed, members, load)
        seconds = self.clock.seconds
        # ``None`` is a member that was not validated
        found = (Diverged("a weight is not finite after the training") if each is None else each for each in values)
        return {
            member: failed(value, seconds) if isinstance(value, Exception) else Evaluation(value, "ok", seconds)
            for member, value in zip(members, found, strict=True)
        }
