"""Microseconds of one training step of one candidate, for each way to score a population.

    python benchmarks/population.py --data FOLDER --output population.json

A figure is the time of a whole evaluation (setting up, ``--steps`` optimizer steps, validation) over candidates and
steps, median of ``--rounds`` rounds; in a round the ways run in turn. ``cpu`` is processor time, that of workers
included, and the ratios of ways with one thread are of processor time, so that other work on the machine disturbs less;
all others are of wall-clock time. The bare loop is a plain PyTorch loop over one candidate, without validation. Peak
memory is that of a fresh process which scores one population.

Tasks: an MLP 64-64-10 on the digits of scikit-learn; with ``--data``, a folder that holds ``mnist`` and
``cifar10_subset`` in the layout of the hub, LeNet-5 and an MLP 784-1000-1000-10 on MNIST and a ResNet-8 on CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tglo_lightning.data import batch_loader
from tglo_lightning.data.hub import load_images
from tglo_lightning.evaluation import InnerFit, ProcessEvaluator, TrainerEvaluator, VectorizedEvaluator, probe
from tglo_lightning.models import MLP, LeNet5, ResNet
from tglo_lightning.module import LossSlots
from tglo_lightning.search import Budget, Criterion

VALIDATION = 400


@dataclass(frozen=True)
class Work:
    """A task: its network, its data, and how long a candidate trains."""

    name: str
    net: Callable[[], nn.Module]
    source: str | None
    batch: int
    steps: int
    alone: int  # candidates where they are trained one after the other
    populations: tuple[int, ...]
    compiled: bool = True


def network(kind: Any, shape: tuple[int, ...], **sizes: Any) -> Callable[[], nn.Module]:
    return partial(kind, input_shape=shape, num_classes=10, **sizes)


WORKS = {
    work.name: work
    for work in (
        Work("digits MLP", network(MLP, (1, 8, 8), hidden=(64,)), None, 64, 400, 2, (4, 20, 64, 256)),
        Work("MNIST LeNet", network(LeNet5, (1, 28, 28)), "mnist", 128, 8, 2, (4, 20), compiled=False),
        Work("MNIST MLP", network(MLP, (1, 28, 28), hidden=(1000, 1000)), "mnist", 128, 5, 2, (4, 20), compiled=False),
        Work("CIFAR ResNet-8", network(ResNet, (3, 32, 32), depth=8), "cifar10_subset", 64, 3, 1, (4, 20), False),
    )
}


class Module(pl.LightningModule):
    """What a user would write."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = work.net()
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss."""
        loss = self.criterion(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The accuracy."""
        self.log("val/acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def datasets(work: Work, folder: Path | None) -> tuple[TensorDataset, TensorDataset]:
    if work.source is None:
        pixels, targets = load_digits(return_X_y=True)
        images, labels = torch.from_numpy(pixels).float().div(16).view(-1, 1, 8, 8), torch.from_numpy(targets)
    else:
        assert folder is not None
        images, labels = load_images(str(folder / work.source), "train")
        images, labels = images[:4096].float().div(255), labels[:4096]
    cut = len(images) - VALIDATION
    return TensorDataset(images[:cut], labels[:cut]), TensorDataset(images[cut:], labels[cut:])


def inner_fit(work: Work, data: tuple[TensorDataset, TensorDataset]) -> InnerFit:
    """The fit as :class:`TaylorGLO` hands it to an evaluator."""
    fits = []

    class Catch(pl.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            fits.append(InnerFit(trainer, pl_module, LossSlots("criterion"), "val/acc", Budget(steps=work.steps)))
            probe(fits[0])
            raise NotImplementedError  # the fit itself is of no interest

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with tempfile.TemporaryDirectory() as folder, suppress(NotImplementedError):
        trainer = pl.Trainer(
            accelerator="cpu", callbacks=[Catch()], enable_model_summary=False, default_root_dir=folder, **quiet
        )
        trainer.fit(Module(work), batch_loader(data[0], work.batch, shuffle=True), batch_loader(data[1], VALIDATION))
    return fits[0]


def candidates(count: int) -> list[Criterion]:
    """Losses around cross-entropy's expansion, all of which train."""
    spread = 0.3 * torch.randn(count, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    thetas = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0]) + spread
    return [Criterion.of("taylorglo", theta) for theta in thetas.tolist()]


def train(evaluator: Any, criteria: list[Criterion]) -> None:
    """Train a population for its whole budget."""
    population = evaluator.start(criteria, 0)
    try:
        population.advance(population.length)
        failed = [e.error for e in population.scores() if not e.ok]
    finally:
        population.close()
    assert not failed, failed[0]


def bare_loop(work: Work, data: TensorDataset, threads: int) -> None:
    """One candidate, trained as in a script without Lightning."""
    torch.set_num_threads(threads)
    try:
        for criterion in candidates(work.alone):
            module = Module(work)
            loss = criterion.build()
            optimizer = module.configure_optimizers()
            loader = batch_loader(data, work.batch, shuffle=True)
            done = 0
            while done < work.steps:
                for x, y in loader:
                    optimizer.zero_grad()
                    loss(module.net(x), y).backward()
                    optimizer.step()
                    done += 1
                    if done == work.steps:
                        break
    finally:
        torch.set_num_threads(1)


@dataclass
class Way:
    """One way to train candidates."""

    name: str
    run: Callable[[], Any]
    candidates: int
    one_thread: bool = True
    close: Callable[[], Any] | None = None


def evaluation(name: str, evaluator: Any, fit: InnerFit, count: int, one_thread: bool = True) -> Way:
    evaluator.setup(fit)
    return Way(name, partial(train, evaluator, candidates(count)), count, one_thread, evaluator.close)


def ways(work: Work, fit: InnerFit, data: TensorDataset, compiled: bool) -> list[Way]:
    cores = len(os.sched_getaffinity(0))
    population = 20
    result = [
        Way("bare loop", lambda: bare_loop(work, data, 1), work.alone),
        evaluation("nested Trainer", TrainerEvaluator(), fit, work.alone),
        evaluation("sequential", VectorizedEvaluator(chunk_size=1), fit, work.alone),
    ]
    if cores > 1:
        several = Way(f"bare loop, {cores} threads", lambda: bare_loop(work, data, cores), work.alone, one_thread=False)
        inner = VectorizedEvaluator(chunk_size=1)
        result += [
            several,
            evaluation(
                f"processes, {cores}", ProcessEvaluator(cores, inner=inner), fit, max(work.alone, 2) * cores, False
            ),
        ]
    result += [evaluation(f"vectorized, {n}", VectorizedEvaluator(), fit, n) for n in work.populations]
    if compiled and work.compiled:
        result.append(evaluation(f"compiled, {population}", VectorizedEvaluator(compile=True), fit, population))
    return result


def clock() -> tuple[float, float]:
    """Seconds on the wall, and of the processor."""
    return time.perf_counter(), time.process_time()


def measure(work: Work, folder: Path | None, rounds: int, compiled: bool) -> list[dict[str, Any]]:
    data = datasets(work, folder)
    options = ways(work, inner_fit(work, data), data[0], compiled)
    times: dict[str, list[tuple[float, float]]] = {way.name: [] for way in options}
    for number in range(rounds + 1):
        for way in options:
            before = clock()
            way.run()
            scale = 1e6 / (way.candidates * work.steps)
            # The first round warms up
            if number:
                times[way.name].append(tuple(scale * (b - a) for a, b in zip(before, clock(), strict=True)))
    for way in options:
        if way.close is not None:
            way.close()

    def median_ratio(reference: str, way: Way) -> float:
        kind = 1 if way.one_thread else 0
        pairs = zip(times[reference], times[way.name], strict=True)
        return statistics.median(base[kind] / own[kind] for base, own in pairs)

    return [
        {
            "work": work.name,
            "way": way.name,
            "candidates": way.candidates,
            "wall_us": statistics.median(wall for wall, _ in times[way.name]),
            "cpu_us": statistics.median(cpu for _, cpu in times[way.name]) if way.one_thread else None,
            "times_nested": median_ratio("nested Trainer", way),
            "times_bare": median_ratio("bare loop", way),
        }
        for way in options
    ]


def peak_memory(work: Work, folder: Path | None, population: int) -> float | None:
    """GiB that a fresh process takes to score one population; ``None`` where the system does not say."""
    if not Path("/proc/self/status").exists():
        return None
    with mp.get_context("spawn").Pool(1) as pool:
        peak: float = pool.apply(_peak_memory, (work.name, folder, population))
    return peak


def _peak_memory(name: str, folder: Path | None, population: int) -> float:
    torch.set_num_threads(1)
    work = WORKS[name]
    evaluation("vectorized", VectorizedEvaluator(), inner_fit(work, datasets(work, folder)), population).run()
    # Not `ru_maxrss`, which starts from what the parent held
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) / 2**20


def table(rows: list[dict[str, Any]]) -> Table:
    columns = ("way", "us (wall)", "us (cpu)", "nested / this", "bare / this", "peak GiB")
    result = Table(*columns, title=f"{rows[0]['work']}: one step of one candidate")
    for row in rows:
        result.add_row(
            row["way"],
            f"{row['wall_us']:.0f}",
            "" if row["cpu_us"] is None else f"{row['cpu_us']:.0f}",
            f"{row['times_nested']:.2f}",
            f"{row['times_bare']:.2f}",
            f"{row['peak_gib']:.2f}" if row.get("peak_gib") is not None else "",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with mnist/ and cifar10_subset/; digits only without it")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), help="tasks (default: all whose data are there)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="digits, few steps, one round, nothing compiled")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = args.works or [name for name, work in WORKS.items() if work.source is None or args.data is not None]
    if args.quick:
        names, args.rounds, args.no_compile = names[:1], 1, True
        quick = asdict(WORKS[names[0]]) | {"steps": 40, "populations": (4, 20)}
        WORKS[names[0]] = Work(**quick)
    rows: list[dict[str, Any]] = []
    console = Console(width=120)
    for name in names:
        work = WORKS[name]
        if work.source is not None and args.data is None:
            parser.error(f"{name} needs --data")
        found = measure(work, args.data, args.rounds, not args.no_compile)
        for row in found:
            if row["way"].startswith("vectorized"):
                row["peak_gib"] = peak_memory(work, args.data, row["candidates"])
        console.print(table(found))
        rows += found
    if args.output is not None:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        report = {"rounds": args.rounds, "cores": os.cpu_count(), "versions": versions, "rows": rows}
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
