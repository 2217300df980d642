"""What do the constraint and the coordinates of a search save, and what does it find?

Every search is the real one: the callback ``TaylorGLO`` within ``Trainer.fit``, candidates trained as a population by
the ``VectorizedEvaluator`` from fresh weights, each for the full budget, the best five trained again, one of them
confirmed against cross-entropy. What it keeps is then trained from fresh weights five times and tested on clean test
data. A cell of the table is a kind of coordinates, a constraint and a spread of the first draws over several search
seeds, which are shared by all cells.

Columns, mean and sample standard deviation over the search seeds:

* ``trainable``: share of the candidates of generation 1 whose fitness gets at least a quarter of the way from chance
  (the largest class of the validation data) to that of cross-entropy.
* ``gen. 1``, ``gen. 4``, ``gen. 8``: mean fitness, the validation accuracy, of a generation. ``digits_noisy`` has
  40 % wrong labels in the validation data too, so a perfect network would reach 0.60 there.
* ``to 0.54``: candidates trained until one reaches that fitness; median, and how many of the searches got there.
* ``rejected``: draws that the constraint rejected for each candidate that was trained.
* ``kept``: searches whose loss was confirmed to beat cross-entropy on validation data, so that it was kept.
* ``test``: test accuracy of the loss kept, mean over the fresh trainings of a search, then over searches.
* ``p``: two-sided p-value of the t-test against "full, none", paired by search seed; not corrected for their number.

    python benchmarks/search_efficiency.py --data ../shared/data --output search_efficiency.json

A search that is in ``--output`` already is not repeated, so a run that was stopped goes on. ``--data`` holds MNIST in
the parquet layout of the public hub (folder ``mnist``); without it that task is left out. One thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import pytorch_lightning as pl
import torch

from tglo_lightning import TaylorGLO
from tglo_lightning.data import DigitsDataModule, MNISTDataModule
from tglo_lightning.evaluation import VectorizedEvaluator
from tglo_lightning.models import MLP, Classifier
from tglo_lightning.reporting.stats import verdict
from tglo_lightning.search import SearchResult, TaylorSpace

SETTINGS: dict[str, Any] = {"generations": 8, "population": 20}
FRESH = 5  # trainings of the loss kept
Cell = tuple[str, str | None, float]  # coordinates, constraint, spread
# The first is what the others are compared with
CROSSED: list[Cell] = [(p, c, 1.2) for p in ("full", "minimal") for c in (None, "published", "trainable", "stable")]
# Spreads for the minimal coordinates, whose numbers are not those of theta
BEYOND: list[Cell] = [("minimal", "trainable", 3.0), ("minimal", "stable", 3.0)]
BASELINE = "cross-entropy"


@dataclass(frozen=True)
class Task:
    """Data and training; a candidate trains as long as the final network."""

    name: str
    data: Callable[[Path], Any]
    hidden: tuple[int, ...]
    lr: float
    epochs: int
    target: float

    def module(self) -> Classifier:
        """A fresh network with cross-entropy."""
        images = DigitsDataModule if self.name.startswith("digits") else MNISTDataModule
        net = MLP(input_shape=images.input_shape, num_classes=images.num_classes, hidden=self.hidden)
        return Classifier(net, torch.nn.CrossEntropyLoss(), images.num_classes, partial(torch.optim.Adam, lr=self.lr))


def digits(_: Path) -> DigitsDataModule:
    return DigitsDataModule(train_size=600, val_size=400, label_noise=0.4)


def mnist(root: Path) -> MNISTDataModule:
    if not (root / "mnist").is_dir():
        raise FileNotFoundError(f"no folder mnist in {root}")
    return MNISTDataModule(source=str(root / "mnist"), train_fraction=600 / 59_000, val_size=1000, batch_size=64)


TASKS = (
    Task("digits_noisy", digits, (64,), 0.02, 40, target=0.54),
    Task("mnist_600", mnist, (32,), 0.005, 15, target=0.87),
)


def train(task: Task, data: Any, module: Classifier, *callbacks: pl.Callback) -> float:
    """Test accuracy after a training of the full budget."""
    trainer = pl.Trainer(
        max_epochs=task.epochs,
        accelerator="cpu",
        check_val_every_n_epoch=task.epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=data)
    return float(trainer.test(module, datamodule=data, verbose=False)[0]["test/acc"])


def fresh(task: Task, seed: int, number: int) -> Classifier:
    """A network for the final trainings: the same for all cells, and none that the search has seen."""
    torch.manual_seed(100_000 + 1000 * seed + number)
    return task.module()


def measure(task: Task, data: Any, cell: Cell | None, seed: int) -> dict[str, Any]:
    """One search and the trainings with what it kept; for ``None`` those with cross-entropy alone."""
    started = time.perf_counter()
    if cell is None:
        accuracy = [train(task, data, fresh(task, seed, number)) for number in range(FRESH)]
        return {"test": accuracy, "seconds": time.perf_counter() - started}
    coordinates, constraint, spread = cell
    callback = TaylorGLO(
        **SETTINGS,
        space=TaylorSpace(coordinates=coordinates, constraint=constraint, spread=spread),
        init=task.module,
        seed=seed,
        evaluator=VectorizedEvaluator(),
    )
    accuracy = [train(task, data, fresh(task, seed, 0), callback)]
    result = callback.result
    assert isinstance(result, SearchResult)
    if result.settings["evaluator"] != "vectorized":
        raise RuntimeError(f"{task.name} was not trained as a population.")
    for number in range(1, FRESH):
        module = fresh(task, seed, number)
        module.criterion = result.loss(module.criterion)
        accuracy.append(train(task, data, module))
    plain = result.to_dict()
    return {
        "fitness": [
            [c["fitness"] for c in plain["history"] if c["generation"] == g] for g in range(SETTINGS["generations"])
        ],
        "chance": chance(data),
        "cross_entropy": plain["original"]["fitness"],
        "kept": result.kept,
        "best": plain["best"],
        "rejected": sum(result.rejected),
        "search_seconds": result.seconds,
        "test": accuracy,
        "seconds": time.perf_counter() - started,
    }


def chance(data: Any) -> float:
    """Share of the largest class of the validation data."""
    labels = torch.cat([labels for _, labels in data.val_dataloader()])
    return float(labels.bincount().max()) / len(labels)


# The table


def figures(run: dict[str, Any], target: float) -> dict[str, float]:
    """The columns of one search; a candidate that diverged counts as not trainable and has no part in the means."""
    generations = run["fitness"]
    flat = [value for population in generations for value in population]
    bar = run["chance"] + 0.25 * (fmean(run["cross_entropy"]) - run["chance"])
    reached = (number for number, value in enumerate(flat, start=1) if value is not None and value >= target)
    values = {"trainable": sum(v is not None and v >= bar for v in generations[0]) / len(generations[0])}
    for number in (1, len(generations) // 2, len(generations)):
        values[f"gen. {number}"] = fmean(v for v in generations[number - 1] if v is not None)
    values["to target"] = next(reached, math.inf)
    values["rejected"] = run["rejected"] / len(flat)
    values["kept"] = float(run["kept"] == "metalearned")
    values["test"] = fmean(run["test"])
    return values


def label(cell: Cell | None) -> str:
    if cell is None:
        return BASELINE
    coordinates, constraint, spread = cell
    return f"{coordinates}, {constraint or 'none'}" + ("" if spread == 1.2 else f", spread {spread:g}")


def entry(column: str, values: list[float], reference: list[float]) -> str:
    """One cell of the table: a column of one row, and the same column of the row to compare with."""
    if column == "to target":
        middle = median(values)
        known = f"{middle:g}" if math.isfinite(middle) else "not reached"
        return f"{known} ({sum(map(math.isfinite, values))}/{len(values)})"
    if column == "kept":
        return f"{sum(values):g}/{len(values)}"
    if column == "rejected":
        return f"{fmean(values):.1f}"
    text = f"{fmean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"
    told = None if values is reference or len(values) != len(reference) else verdict(values, reference)
    return text + ("" if told is None or told.p is None else f" (p {told.p_two_sided:.2g})")


def show(runs: dict[str, dict[str, Any]]) -> None:
    """Print one Markdown table per task."""
    for task in TASKS:

        def found(cell: Cell | None, task: Task = task) -> list[dict[str, Any]]:
            start = f"{task.name}/{label(cell)}/"
            return [run for key, run in runs.items() if key.startswith(start)]

        reference = [figures(run, task.target) for run in found(CROSSED[0])]
        if not reference:
            continue
        columns = {name: [row[name] for row in reference] for name in reference[0]}
        heads = [f"to {task.target:g}" if name == "to target" else name for name in columns]
        print(f"\n### {task.name}\n\n| search | " + " | ".join(heads) + " |")
        print("| --- " * (1 + len(heads)) + "|")
        if plain := [fmean(run["test"]) for run in found(None)]:
            print(f"| {BASELINE} |" + " |" * (len(columns) - 1) + f" {entry('test', plain, columns['test'])} |")
        for cell in [*CROSSED, *BEYOND]:
            rows = reference if cell == CROSSED[0] else [figures(run, task.target) for run in found(cell)]
            if rows:
                own = columns if rows is reference else {name: [row[name] for row in rows] for name in columns}
                print(f"| {label(cell)} | " + " | ".join(entry(c, own[c], columns[c]) for c in columns) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds mnist/")
    parser.add_argument("--output", type=Path, default=Path("search_efficiency.json"), help="JSON file to go on with")
    parser.add_argument("--tasks", default="", help="only tasks whose name holds this text")
    parser.add_argument("--seeds", type=int, default=5, help="search seeds per cell")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    tasks = [{"name": t.name, "hidden": list(t.hidden), "lr": t.lr, "epochs": t.epochs} for t in TASKS]
    report: dict[str, Any] = {"settings": SETTINGS, "fresh": FRESH, "tasks": tasks, "runs": {}}
    if arguments.output.exists():
        present = json.loads(arguments.output.read_text())
        if any(present[key] != report[key] for key in ("settings", "fresh", "tasks")):
            parser.error(f"{arguments.output} holds searches with other settings; choose another --output.")
        report["runs"] = present["runs"]
    report["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
    runs: dict[str, dict[str, Any]] = report["runs"]
    data = {}
    for task in TASKS:
        if arguments.tasks in task.name:
            try:
                data[task] = task.data(arguments.data)
            except FileNotFoundError as error:
                print(f"{task.name}: {error}, left out.")
    seeds = range(arguments.seeds)
    plan = [
        (seed, task, cell) for cells in ([None, *CROSSED], BEYOND) for seed in seeds for task in data for cell in cells
    ]
    for seed, task, cell in plan:
        key = f"{task.name}/{label(cell)}/{seed}"
        if key not in runs:
            runs[key] = measure(task, data[task], cell, seed)
            arguments.output.write_text(json.dumps(report))
            print(f"{key}: {runs[key]['seconds']:.1f} s, test {fmean(runs[key]['test']):.3f}", flush=True)
    show(runs)


if __name__ == "__main__":
    main()
