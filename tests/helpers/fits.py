"""What :class:`TaylorGLO` hands to an evaluator, and populations trained from it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from helpers.data import loaders
from helpers.modules import quiet_trainer
from tglo_lightning.evaluation import InnerFit, TrainerEvaluator, probe
from tglo_lightning.module import LossSlots
from tglo_lightning.search import Budget, Criterion, Evaluation

GENERATOR = torch.Generator().manual_seed(5)
# Around cross-entropy's expansion, so that they train
CRITERIA = [
    Criterion.of("taylorglo", [a + b for a, b in zip([0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0], row, strict=True)])
    for row in (0.4 * torch.randn(5, 8, generator=GENERATOR, dtype=torch.float64)).tolist()
]


def inner_fit(
    api: Any,
    tmp_path: Path,
    module: Any,
    data: dict[str, Any] | None = None,
    budget: Budget | None = None,
    *,
    probed: bool = False,
    monitor: str = "val/acc",
    init: Any = "module",
    **trainer_kwargs: Any,
) -> InnerFit:
    """The inner fit as it is within a fit of a Trainer, by default over blobs, three steps a candidate.

    Without the probe it does not know the length of an epoch.
    """
    fits = []

    class Catch(api.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            fit = InnerFit(trainer, pl_module, LossSlots("criterion"), monitor, budget or Budget(steps=3), init)
            fits.append(fit)
            if probed:
                probe(fit)
            raise NotImplementedError  # the rest of the fit is of no interest

    trainer = quiet_trainer(api, tmp_path, callbacks=[Catch()], **trainer_kwargs)
    with suppress(NotImplementedError):
        trainer.fit(module, **(loaders() if data is None else data))
    return fits[0]


@contextmanager
def running(evaluator: Any, fit: InnerFit) -> Iterator[Any]:
    """The evaluator, set up for ``fit``."""
    evaluator.setup(fit)
    try:
        yield evaluator
    finally:
        evaluator.close()


def trained(
    evaluator: Any,
    fit: InnerFit,
    criteria: Sequence[Criterion] = CRITERIA[:2],
    seed: int = 1,
    pieces: Sequence[int] = (),
    look: bool = True,
) -> tuple[list[Evaluation], list[dict[str, torch.Tensor]]]:
    """Scores and weights at the end of trainings that are advanced in pieces; with ``look``, scored after each."""
    scores, weights = [], []
    with running(evaluator, fit):
        population = evaluator.start(criteria, seed)
        try:
            for piece in pieces:
                population.advance(piece)
                if look:
                    list(population.scores())
            population.advance(population.length - population.trained)
            for member, score in zip(population.members, population.scores(), strict=True):
                scores.append(score)
                weights.append({name: value.clone() for name, value in population.weights(member).items()})
        finally:
            population.close()
    return scores, weights


def fitness(evaluator: Any, fit: InnerFit, criteria: Sequence[Criterion], seed: int = 1) -> list[float]:
    """The fitness that an evaluator gives to each criterion."""
    with running(evaluator, fit):
        population = evaluator.start(criteria, seed)
        population.advance(population.length)
        found = [evaluation.fitness for evaluation in population.scores()]
        population.close()
    return found


def nested(fit: InnerFit, criteria: Sequence[Criterion], seed: int = 1) -> list[float]:
    """The fitness that nested Trainers give to each criterion."""
    return fitness(TrainerEvaluator(), fit, criteria, seed)


def equal(one: Sequence[dict[str, torch.Tensor]], other: Sequence[dict[str, torch.Tensor]]) -> bool:
    """Whether all members have the same weights, bit for bit."""
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )
