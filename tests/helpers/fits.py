"""What :class:`TaylorGLO` hands to an evaluator, and an evaluator that is closed again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers.data import loaders
from helpers.modules import quiet_trainer
from tglo_lightning.evaluation import InnerFit, TrainerEvaluator, probe
from tglo_lightning.module import LossSlot
from tglo_lightning.search import Budget, Criterion


def inner_fit(
    api: Any,
    tmp_path: Path,
    module: Any,
    data: dict[str, Any] | None = None,
    budget: Budget | None = None,
    *,
    probed: bool = True,
    monitor: str = "val/acc",
    **trainer_kwargs: Any,
) -> InnerFit:
    """The inner fit as it is within a fit of a Trainer, by default over blobs, three steps a candidate."""
    fits = []

    class Catch(api.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            fit = InnerFit(trainer, pl_module, LossSlot("criterion"), monitor, budget or Budget(steps=3))
            if probed:
                probe(fit)
            fits.append(fit)
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


def evaluate(evaluator: Any, criteria: Sequence[Criterion], seed: int = 1) -> list[Any]:
    """Evaluations of whole trainings with each criterion."""
    population = evaluator.start(criteria, seed)
    population.advance(population.length)
    try:
        return list(population.scores())
    finally:
        population.close()


def nested(fit: InnerFit, criteria: Sequence[Criterion], seed: int = 1) -> list[float]:
    """The fitness that nested Trainers give to each criterion."""
    with running(TrainerEvaluator(), fit) as evaluator:
        return [evaluation.fitness for evaluation in evaluate(evaluator, criteria, seed)]
