"""Share of a search's time that is neither training nor validation of candidates.

    python benchmarks/overhead.py --output overhead.json

A search over losses for an MLP 64-64-10 on the digits of scikit-learn, as ``TaylorGLO`` runs it, population 20. What
the evaluator takes is training and validation; the rest of ``on_fit_start`` is the search's own: CMA-ES, constraint,
bookkeeping, progress and logging, the rehearsal of a step, the swap of the loss. Wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from rich.console import Console
from rich.table import Table
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.data import DigitsDataModule
from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.models import MLP, Classifier
from tglo_lightning.search import Budget, Criterion, Evaluation, Finals

EVALUATORS = {"vectorized": VectorizedEvaluator, "trainer": TrainerEvaluator}


class Timed:
    """An evaluator that notes how long it takes."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, criteria: Sequence[Criterion], seed: int) -> TimedPopulation:
        """Start a population, by the clock."""
        return self.clocked(lambda: TimedPopulation(self, self.inner.start(criteria, seed)))

    def clocked(self, call: Callable[[], Any]) -> Any:
        """Call, and add the time that it takes."""
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - started


class TimedPopulation:
    """A population whose training and validation are timed."""

    def __init__(self, timed: Timed, inner: Any) -> None:
        self.timed = timed
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def advance(self, n: int) -> None:
        """Train, by the clock."""
        self.timed.clocked(lambda: self.inner.advance(n))

    def scores(self) -> Iterator[Evaluation]:
        """Validate, by the clock."""
        evaluations = iter(self.inner.scores())
        while (evaluation := self.timed.clocked(lambda: next(evaluations, None))) is not None:
            yield evaluation


class TimedSearch(TaylorGLO):
    """A search that notes how long it takes."""

    seconds = 0.0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Search, by the clock."""
        started = time.perf_counter()
        super().on_fit_start(trainer, pl_module)
        self.seconds = time.perf_counter() - started


def share(name: str, generations: int, steps: int, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    data = DigitsDataModule()
    net = MLP(input_shape=data.input_shape, num_classes=data.num_classes, hidden=(64,))
    module = Classifier(net, nn.CrossEntropyLoss(), data.num_classes, partial(torch.optim.Adam, lr=1e-3))
    evaluator = Timed(EVALUATORS[name]())
    search = TimedSearch(
        generations=generations,
        population=20,
        budget=Budget(steps=steps),
        finals=Finals(finalists=3, seeds=1, confirm=2),
        seed=seed,
        evaluator=evaluator,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[search],
            logger=CSVLogger(folder),
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, datamodule=data)
    own = search.seconds - evaluator.seconds
    return {"search_s": search.seconds, "evaluation_s": evaluator.seconds, "share": own / search.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generations", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="of a candidate (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="searches (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two generations, one round, vectorised only")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = list(EVALUATORS)
    if args.quick:
        args.generations, args.rounds, names = 2, 1, names[:1]
    rows = []
    for name in names:
        # Nested Trainers take long, and their share is small
        generations = args.generations if name == "vectorized" else 1
        runs = [share(name, generations, args.steps, seed) for seed in range(args.rounds if generations > 1 else 1)]
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append({"evaluator": name, "generations": generations, **medians, "runs": runs})
    result = Table(
        "evaluator", "search, s", "training and validation, s", "the rest", title="population 20, digits MLP"
    )
    for row in rows:
        figures = f"{row['search_s']:.2f}", f"{row['evaluation_s']:.2f}", f"{100 * row['share']:.1f} %"
        result.add_row(row["evaluator"], *figures)
    Console().print(result)
    if args.output is not None:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        report = {"steps": args.steps, "population": 20, "versions": versions, "rows": rows}
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
