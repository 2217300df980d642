"""Validate a module after its training, or one module with many sets of weights."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.limits import TimedOut
from tglo_lightning.module.loaders import generators
from tglo_lightning.module.preserving import saved_attributes
from tglo_lightning.search import Criterion
from tglo_lightning.search.seeding import derived_seed, saved_states, seed_all

__all__ = ["Validation", "seed_validation", "validated"]

KEPT_BYTES = 2**28


def seed_validation(loop: Any, module: Any, fit: InnerFit, seed: int) -> None:
    """Let every run of a validation loop draw the same random numbers, whatever was drawn before.

    They are seeded once the data are set up, before the first batch is asked for.
    """
    _seed(loop, seed, lambda: _generators(loop, module, fit))


def _generators(loop: Any, module: Any, fit: InnerFit) -> list[Any]:
    return [*fit.generators, *generators(module, *getattr(loop._combined_loader, "flattened", []))]


def _seed(loop: Any, seed: int, own: Callable[[], Sequence[Any]]) -> None:
    reset, seed = loop.reset, derived_seed(seed, 2**31)

    def seeded() -> None:
        seed_all(seed, own())
        reset()

    loop.reset = seeded


def validated(trainer: Any, module: Any, fit: InnerFit, seed: int) -> dict[str, Any]:
    """Return the metrics of a training, and of a validation after it if there is one."""
    metrics = dict(trainer.callback_metrics)
    if trainer.enable_validation:
        seed_validation(trainer.validate_loop, module, fit, seed)
        trainer.validate(module, **fit.data(validate=True), verbose=False)
        metrics |= trainer.callback_metrics
    return metrics


class Validation:
    """``Trainer.validate`` of many networks, one after the other, with one Trainer and one module.

    They are made, and the data are loaded, at the first call. Each network meets the same random numbers and a module
    that remembers nothing of those before it.

    Args:
        fit: knows the Trainer, the data and the metric.
        criterion: a criterion of the networks' kind.
        seed: seed of the training.
    """

    def __init__(self, fit: InnerFit, criterion: Criterion, seed: int) -> None:
        self.fit, self.criterion, self.seed = fit, criterion, seed
        self._module: Any = None

    def scores(self, members: Sequence[int], load: Callable[[Any, int], Any]) -> list[float | Exception]:
        """Validate some members of a population.

        Args:
            members: members to validate.
            load: puts the weights of a member into the module.

        Returns:
            For each member the value of the monitored metric, NaN if not logged, or the exception that ``load`` or the
            validation raised.

        Raises:
            TimedOut: raised by ``load``.
        """
        if self._module is None:
            self._set_up()
        trainer = self._trainer
        results: list[float | Exception] = []

        def run_each() -> list[Any]:
            for member in members:
                self._restore()
                trainer._logger_connector.reset_metrics()
                trainer._logger_connector.reset_results()
                try:
                    load(self._module, member)
                    self._run()
                    results.append(float(trainer.callback_metrics.get(self.fit.monitor, float("nan"))))
                except TimedOut:
                    raise
                except Exception as error:
                    results.append(error)
            return []

        trainer.validate_loop.run = run_each
        trainer.validate(self._module, **self._data, verbose=False)
        return results

    def _set_up(self) -> None:
        fit = self.fit
        self._module = module = fit.candidate(self.criterion, self.seed)
        self._trainer, self._data = fit.trainer(), fit.data(validate=True)
        loop = self._trainer.validate_loop
        self._run, setup_data = loop.run, loop.setup_data
        loaded: list[Any] = []
        own: list[Any] = []

        def setup_once() -> None:
            if not loaded:
                setup_data()
                loaded.append(loop._combined_loader)
                if loop._combined_loader is not None:
                    pairs = zip(loop._combined_loader.flattened, loop.max_batches, strict=True)
                    # Behind the property, so that code of the user's sees its own loaders
                    loop._combined_loader._flattened = [_Kept(loader, limit) for loader, limit in pairs]
                own.extend(_generators(loop, module, fit))
            # The Trainer takes it away at each call
            (loop._combined_loader,) = loaded

        loop.setup_data = setup_once
        _seed(loop, self.seed, lambda: own)
        self._undo: Callable[[], None] | None = None

    def _restore(self) -> None:
        # Not before Lightning has attached what it needs
        if self._undo is None:
            self._undo = saved_attributes(self._module)
        self._undo()


class _Kept:
    """A loader that keeps its first ``limit`` batches for the next time, unless they are too large.

    Batches that are not loaded again leave the global generators where loading them did.
    """

    def __init__(self, loader: Any, limit: float) -> None:
        self.loader, self.limit = loader, limit
        self.batches: list[tuple[Any, Callable[[], None] | None]] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if self.batches is not None:
            for batch, put_states in self.batches:
                if put_states is not None:
                    put_states()
                # A step may change its batch
                yield copy.deepcopy(batch)
            return
        batches: list[tuple[Any, Callable[[], None] | None]] = []
        room: float = KEPT_BYTES
        before = _states()
        for batch in self.loader:
            # Of an object of another class nobody knows the size, nor whether it can be copied
            leaves = tree_leaves(batch)
            known = all(isinstance(leaf, Tensor | np.ndarray | Number | str | bytes | None) for leaf in leaves)
            room -= sum(getattr(leaf, "nbytes", 0) for leaf in leaves) if known else math.inf
            if room >= 0:
                batches.append((copy.deepcopy(batch), None if _states() == before else saved_states()))
            if len(batches) == self.limit:
                self.batches = batches
            yield batch
            before = _states()
        if room >= 0:
            self.batches = batches


def _states() -> Any:
    """Of the global generators on the CPU, which loaders draw from, something to compare."""
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return random.getstate(), state["key"].tobytes(), state["pos"], torch.get_rng_state().numpy().tobytes()
