"""Candidates a minute on several ranks of a Trainer, worker processes and Ray workers, one thread each.

    python benchmarks/scaling.py --output scaling.json

Each way scores the same candidates: an MLP 64-64-10 on the digits of scikit-learn, ``--steps`` optimizer steps and a
validation each, trained one by one by the evaluator ``sequential``. Ranks are those of a real Trainer with DDP over
gloo. Starting processes, imports and a first round of one candidate each are not counted; a search pays for them once.
In a round all ways run in turn, and a speed-up is the ratio of two figures of one round; medians over ``--rounds``
rounds. Wall-clock time, so other work on the machine counts: the report has the load before and after.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from population import VALIDATION, WORKS, Module, candidates, datasets, inner_fit, train
from rich.console import Console
from rich.table import Table

from tglo_lightning.data import batch_loader
from tglo_lightning.evaluation import InnerFit, ProcessEvaluator, Ranks, RayEvaluator, VectorizedEvaluator, probe
from tglo_lightning.module import LossSlots
from tglo_lightning.search import Budget

WORK = WORKS["digits MLP"]
RESULT = "seconds.json"


def seconds(evaluator: Any, count: int, workers: int) -> float:
    """Time of ``count`` candidates, once every worker has trained one."""
    for criteria in (candidates(workers), candidates(count)):
        started = time.perf_counter()
        train(evaluator, criteria)
    return time.perf_counter() - started


def alone(count: int, workers: int, steps: int) -> float:
    """No worker but this process."""
    return _timed(VectorizedEvaluator(chunk_size=1), count, workers, steps)


def processes(count: int, workers: int, steps: int) -> float:
    """Worker processes."""
    return _timed(ProcessEvaluator(workers, inner=VectorizedEvaluator(chunk_size=1)), count, workers, steps)


def on_ray(count: int, workers: int, steps: int) -> float:
    """Workers of a local Ray."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        return _timed(RayEvaluator(inner=VectorizedEvaluator(chunk_size=1)), count, workers, steps)
    finally:
        ray.shutdown()


def _timed(evaluator: Any, count: int, workers: int, steps: int) -> float:
    work = replace(WORK, steps=steps)
    evaluator.setup(inner_fit(work, datasets(work, None)))
    try:
        return seconds(evaluator, count, workers)
    finally:
        evaluator.close()


def ranks(count: int, workers: int, steps: int) -> float:
    """Ranks of a Trainer, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--as-ranks", folder, "--workers", str(workers)]
        command += ["--candidates", str(count), "--steps", str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise RuntimeError(done.stderr)
        return float(json.loads((Path(folder) / RESULT).read_text()))


class Share(pl.Callback):
    """What :class:`TaylorGLO` does on each rank, with a clock in place of a search."""

    def __init__(self, folder: Path, count: int, workers: int, steps: int) -> None:
        self.folder, self.count, self.workers, self.steps = folder, count, workers, steps

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Lead, or follow."""
        fit = InnerFit(trainer, pl_module, LossSlots("criterion"), "val/acc", Budget(steps=self.steps))
        with Ranks(trainer) as team:
            probe(fit)
            evaluator = VectorizedEvaluator(chunk_size=1)
            evaluator.setup(fit)
            if team.leads:
                taken = seconds(team.spread(evaluator), self.count, self.workers)
                (self.folder / RESULT).write_text(json.dumps(taken))
                team.finish(None)
            else:
                team.follow(lambda name: evaluator)
        trainer.should_stop = True


def as_ranks(args: argparse.Namespace) -> None:
    """One rank's part."""
    data = datasets(WORK, None)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=args.workers[0],
        strategy="ddp" if args.workers[0] > 1 else "auto",
        max_steps=0,
        callbacks=[Share(args.as_ranks, args.candidates, args.workers[0], args.steps)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=args.as_ranks,
    )
    trainer.fit(Module(WORK), batch_loader(data[0], WORK.batch, shuffle=True), batch_loader(data[1], VALIDATION))


WAYS: dict[str, Callable[[int, int, int], float]] = {"ranks": ranks, "processes": processes, "ray": on_ray}


def measure(names: list[str], args: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """The rows after each round."""
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.rounds):
        times.setdefault(("this process", 1), []).append(alone(args.candidates, 1, args.steps))
        for workers in args.workers:
            for name in names:
                times.setdefault((name, workers), []).append(WAYS[name](args.candidates, workers, args.steps))
        yield summary(times, args)


def summary(times: dict[tuple[str, int], list[float]], args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for (name, workers), found in times.items():
        first = times[name, min(args.workers)] if name in WAYS else found
        gains = [one / many for one, many in zip(first, found, strict=True)]
        row = {
            "way": name,
            "workers": workers,
            "seconds": found,
            "candidates_a_minute": statistics.median(60 * args.candidates / taken for taken in found),
            "speedup": statistics.median(gains),
            "speedup_range": [min(gains), max(gains)],
            "efficiency": statistics.median(gains) * min(args.workers) / workers,
        }
        base = [one / many for one, many in zip(times["this process", 1], found, strict=True)]
        rows.append({**row, "over_this_process": statistics.median(base)})
    return rows


def table(rows: list[dict[str, Any]], caption: str) -> Table:
    columns = ("way", "workers", "candidates/min", "over 1 of its kind", "range", "efficiency", "over this process")
    result = Table(*columns, title="Candidates a minute, one thread a worker", caption=caption)
    for row in rows:
        low, high = row["speedup_range"]
        result.add_row(
            row["way"],
            str(row["workers"]),
            f"{row['candidates_a_minute']:.1f}",
            f"{row['speedup']:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{100 * row['efficiency']:.0f} %",
            f"{row['over_this_process']:.2f}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", nargs="+", type=int, help="numbers of workers (default: 1 2 4, as far as cores)")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), help="(default: all; ray if it is installed)")
    parser.add_argument("--candidates", type=int, default=16, help="in a round (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="of a candidate (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="four candidates of 50 steps, one round, no Ray")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--as-ranks", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if args.as_ranks is not None:
        as_ranks(args)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    args.workers = sorted(args.workers or [number for number in (1, 2, 4) if number <= cores])
    names = args.ways or [name for name in WAYS if name != "ray" or find_spec("ray") is not None]
    if args.quick:
        args.candidates, args.steps, args.rounds = 4, 50, 1
        names = [name for name in names if name != "ray"]
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    for done, rows in enumerate(measure(names, args), start=1):
        loads = [load, os.getloadavg()[0] if hasattr(os, "getloadavg") else None]
        settings = {"candidates": args.candidates, "steps": args.steps, "rounds": done}
        report = {**settings, "cores": cores, "load": loads, "versions": versions, "rows": rows}
        if args.output is not None:
            args.output.write_text(json.dumps(report, indent=1) + "\n")
    caption = f"{cores} cores, load before and after {loads}; {args.candidates} candidates of {args.steps} steps"
    Console(width=120).print(table(rows, caption))


if __name__ == "__main__":
    main()
