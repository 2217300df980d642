"""Score a whole population in one pass: stacked parameters under ``torch.func.vmap``."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.arguments import integer, optional
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.limits import Diverged, TimedOut, brief, failed, out_of_memory
from tglo_lightning.evaluation.pausing import Pausable
from tglo_lightning.evaluation.trainer import TrainerPopulation, Training
from tglo_lightning.evaluation.validation import Validation
from tglo_lightning.evaluation.vectorized.compilation import CompiledGradients
from tglo_lightning.evaluation.vectorized.loop import PopulationLoop
from tglo_lightning.evaluation.vectorized.mixed import kinds_of, mix, takes_own
from tglo_lightning.evaluation.vectorized.vectorizable import NotVectorizable
from tglo_lightning.module import LossSlot
from tglo_lightning.search import Criterion, Evaluation
from tglo_lightning.search.seeding import seed_all

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

    def start(self, criteria: Sequence[Criterion], seed: int) -> TrainerPopulation:
        """Start a training for each criterion."""
        own = takes_own(self.fit.slots, self.fit.module)
        groups: dict[Any, dict[int, Criterion]] = {}
        for index, criterion in enumerate(criteria):
            # The module's own loss has no limit of time, and may be one that cannot be mapped
            apart = not criterion.losses and not (self.fit.budget.timeout is None and own)
            groups.setdefault((apart, apart and criterion.is_original), {})[index] = criterion
        stacks = [_Stack(self, group, seed) for group in groups.values()]
        return TrainerPopulation(self.fit.budget.length, stacks)


class _Stack(Training):
    """Members that train in one fit; should that fail midway, by nested Trainers."""

    def __init__(self, evaluator: VectorizedEvaluator, criteria: dict[int, Criterion], seed: int) -> None:
        super().__init__(evaluator.fit, criteria, seed)
        self.evaluator = evaluator
        self.loop: PopulationLoop | None = None
        self._nested: dict[int, Training] = {}
        self._validation: Validation | None = None
        self._own: list[tuple[LossSlot, Any]] = []

    def score(self, member: int, until: int) -> Evaluation:
        if not self._nested:
            self._update(until)
        return self._nested[member].score(member, until) if self._nested else self._scores[member]

    def keep(self, members: set[int]) -> int:
        if self._nested:
            return sum(training.keep({member} & members) for member, training in self._nested.items())
        if not members:
            self.close()
            return 0
        if self.loop is None and self.resumed is not None:
            # The stacks are first made as they were noted, with all members of that time
            self.resumed["kept"] = members
            return 0
        if self.loop is not None:
            self.loop.keep(members)
        self.clock.count = len(members)
        self.criteria = {member: self.criteria[member] for member in sorted(members)}
        return 0

    def weights(self, member: int) -> dict[str, Tensor]:
        if self._nested:
            return self._nested[member].weights(member)
        assert self.loop is not None, "not trained yet"
        return self.loop.weights(member)

    def state(self) -> dict[str, Any] | None:
        return None if self._nested else super().state()

    def free(self, member: int) -> None:
        if self._nested:
            self._nested[member].free(member)

    def close(self) -> None:
        super().close()
        self.loop = self._validation = None

    @property
    def _common(self) -> Criterion:
        """A criterion to begin with: that of all members but for their parameters, or the module's own."""
        first = next(iter(self.criteria.values()))
        return Criterion(first.losses if len(kinds_of(self.criteria.values())) == 1 else ())

    def _rescued(self, error: Exception) -> dict[int, Evaluation]:
        if isinstance(error, TimedOut):
            return super()._rescued(error)
        if self.evaluator.strict:
            raise error
        if not isinstance(error, NotVectorizable):
            if self.evaluator.compile:
                warnings.warn(f"Going on uncompiled: {brief(error)}", stacklevel=2)
                self.evaluator.compile = False
                self._scores = {}
                self._update(self.until)
                return self._scores
            warnings.warn(
                f"Training a population of {len(self.criteria)} failed with {brief(error)}. Its "
                "candidates are trained by nested Trainers.",
                stacklevel=2,
            )
        self._nested = {
            member: Training(self.fit, {member: criterion}, self.seed) for member, criterion in self.criteria.items()
        }
        return {}

    def _advance(self) -> dict[int, Evaluation]:
        """Train and score the members, in smaller chunks if there is not enough memory."""
        while True:
            try:
                self.pausable.resume(to_end=self.until >= self.fit.budget.length)
                break
            except (RuntimeError, MemoryError) as error:
                size = 1 if self.loop is None else max((chunk.size for chunk in self.loop.chunks), default=1)
                if size == 1 or not out_of_memory(error):
                    raise
                # For the whole search: the next population is as large
                self.evaluator.chunk_size = size // 2
            self.loop, self.pausable = None, Pausable(self._fit, self.fit.generators)
            # A Trainer refers to itself, and would hold its population's memory for a while
            gc.collect()
        return self._validate()

    def _fit(self) -> None:
        """Run the whole fit, with its pauses."""
        fit, evaluator = self.fit, self.evaluator
        module = fit.candidate(self._common, self.seed)
        if len(kinds_of(self.criteria.values())) > 1:
            mix(module, fit.slots, list(self.criteria.values()))
        self.loop = PopulationLoop(self, evaluator.chunk_size, evaluator.compiled if evaluator.compile else None)
        trainer = fit.trainer(self.loop)
        seed_all(self.seed, fit.generators)
        trainer.fit(module, **fit.data())
        evaluator.stochastic = self.loop.stochastic

    def _validate(self) -> dict[int, Evaluation]:
        """Score the members with their weights as they stand."""
        loop, fit = self.loop, self.fit
        assert loop is not None
        if self._validation is None:
            self._validation = Validation(fit, self._common, self.seed)

        def load(module: Any, member: int) -> None:
            self.clock.check()
            weights = loop.weights(member)
            if not self._own:
                self._own = [(slot, slot.get(module)) for slot in fit.slots]
            if not self.criteria[member].losses:
                for slot, loss in self._own:
                    slot.set(module, loss)
            fit.slots.install(module, self.criteria[member])
            module.load_state_dict(weights, strict=False)
            if not all(bool(torch.isfinite(weights[name]).all()) for name in loop.step.params):
                raise Diverged("a weight is not finite after the training")

        values = self._validation.scores(list(self.criteria), load)
        seconds = self.clock.seconds
        return {
            member: failed(value, seconds) if isinstance(value, Exception) else Evaluation(value, "ok", seconds)
            for member, value in zip(self.criteria, values, strict=True)
        }
