"""Validate one module with many sets of weights, setting up the Trainer and loading the data once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.trainer import validation_seed
from tglo_lightning.module.loaders import generators, nothing
from tglo_lightning.module.preserving import saved_attributes
from tglo_lightning.search import Criterion
from tglo_lightning.search.seeding import seed_all

__all__ = ["validate_each"]

KEPT_BYTES = 2**28


def validate_each(
    fit: InnerFit, criterion: Criterion, seed: int, members: Sequence[int], load: Callable[[Any, int], bool]
) -> Iterator[float | Exception | None]:
    """Return what ``Trainer.validate`` says of the monitored metric for each member of a population.

    Each member meets the same random numbers and a module that remembers nothing of the members before it.

    Args:
        fit: knows the Trainer, the data and the metric.
        criterion: a criterion of the members' kind.
        seed: seed of the training.
        members: members to validate.
        load: puts the weights of a member into the module; ``False`` to leave the member out.

    Returns:
        For each member the value, NaN if it was not logged; the exception that the validation raised; or ``None`` if it
        was left out.
    """
    module = fit.candidate(criterion, seed)
    trainer = fit.trainer()
    loop = trainer.validate_loop
    run, setup_data = loop.run, loop.setup_data
    results: list[float | Exception | None] = []

    def setup_once() -> None:
        setup_data()
        loop.setup_data = nothing
        if loop._combined_loader is not None:
            pairs = zip(loop._combined_loader.flattened, loop.max_batches, strict=True)
            loop._combined_loader.flattened = [_Kept(loader, limit) for loader, limit in pairs]

    def run_each() -> list[Any]:
        restore = saved_attributes(module)
        for member in members:
            restore()
            if not load(module, member):
                results.append(None)
                continue
            trainer._logger_connector.reset_metrics()
            trainer._logger_connector.reset_results()
            seed_all(validation_seed(seed), [*fit.generators, *generators(module)])
            try:
                run()
            except Exception as error:
                results.append(error)
            else:
                results.append(float(trainer.callback_metrics.get(fit.monitor, float("nan"))))
        return []

    loop.run, loop.setup_data = run_each, setup_once
    trainer.validate(module, **fit.data(validate=True), verbose=False)
    return iter(results)


class _Kept:
    """A loader that keeps its first ``limit`` batches for the next time, unless they are too large."""

    def __init__(self, loader: Any, limit: float) -> None:
        self.loader = loader
        self.limit = limit
        self.batches: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if self.batches is not None:
            # A step may change its batch
            yield from map(copy.deepcopy, self.batches)
            return
        batches: list[Any] = []
        room = KEPT_BYTES
        for batch in self.loader:
            room -= sum(leaf.nbytes for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
            if room >= 0:
                batches.append(copy.deepcopy(batch))
            if len(batches) == self.limit:
                self.batches = batches
            yield batch
        if room >= 0:
            self.batches = batches
