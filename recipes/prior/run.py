"""Makes a prior: one loss that is good on many tasks at once, for a search to start from.

CMA-ES searches the shape of a TaylorGLO loss of order 3 and a factor on the learning rate. The fitness is the mean over
the source tasks of the gain ``(err_ce - err) / (err_ce + 0.02)``, clipped to [-1, 1], on clean data. A candidate's rate
is the better of two, by noisy validation; cross-entropy's the best of four. Groups of tasks are held out, with a search
without each; other searches see only noisy or only cleaner tasks, or a loss of order 4.

    python -m recipes.prior --small                      # a try, minutes on two cores
    python -m recipes.prior --device cuda --jobs 12      # the whole, on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import cma
import numpy as np
import torch
import torch.multiprocessing as mp

from benchmarks.worth.methods import of_twin
from benchmarks.worth.trainer import Member, Trainer
from recipes.prior.tasks import Task, source_tasks, unseen_tasks
from tglo_lightning.losses.priors import Prior, prior
from tglo_lightning.search import Criterion, ShapeSpace

RATES = (3.0, 1.0, 0.3, 0.1)  # of the rivals, and of a found loss in the table
OWN_RATES = {"adam": (1.0, 0.3), "sgd": (3.0, 1.0)}  # of a candidate, times its own factor
# Where a search starts and how far it looks, for each order: the shape and the logarithm of the rate's factor
STARTS = {3: (0.5, 0.6, 1.0, 0.0), 4: (0.4, 0.5, 0.6, 1.0, 1.0, 0.0)}
SPREAD = {3: (0.5, 0.6, 0.6, 0.7), 4: (0.5, 0.5, 0.6, 0.6, 0.6, 0.7)}
HELD_OUT = (("classification", "quantiles"), ("blobs", "iris"), ("teacher", "images"))
NOISY = 0.4  # share of wrong labels from which on a task is one of the noisy ones
SPLITS, FRESH = 200, 210  # first split of the searches, and of the tables
RIVALS = {
    "smoothing": Criterion.of("smoothing", [0.1]),
    "gce": Criterion.of("gce", [0.7]),
    "sce": Criterion.of("sce", [0.1, 1.0]),
    "nce_rce": Criterion.of("nce_rce", [4.0]),
}
Pool = Callable[[list[tuple[str, int, list[tuple[Criterion, int, int]]]]], list[np.ndarray]]
X = Sequence[float]


@dataclass(frozen=True)
class Settings:
    """How large the searches are, and where they run; after ``seconds`` no further generation begins."""

    generations: int = 14
    population: int = 20
    searches: int = 3
    splits: int = 3
    device: str = "cpu"
    stack: int = 0
    graphs: bool = True
    seconds: float | None = None


@dataclass(frozen=True)
class Search:
    """A search: its name, the tasks that it sees, and the order of its losses."""

    name: str
    tasks: frozenset[str]
    order: int = 3


def searches(tasks: Sequence[Task]) -> list[Search]:
    """One on all tasks, one without each group, one on noisy and one on cleaner tasks, one of order 4."""
    held = [group for group in HELD_OUT if any(task.family in group for task in tasks)]
    chosen: dict[str, Callable[[Task], bool]] = {"all": lambda task: True}
    chosen |= {f"without {' and '.join(g)}": lambda task, g=g: task.family not in g for g in held}
    chosen |= {"noisy": lambda task: task.noise >= NOISY, "cleaner": lambda task: task.noise < NOISY}
    found = [Search(name, frozenset(t.name for t in tasks if takes(t))) for name, takes in chosen.items()]
    return [*(s for s in found if s.tasks), Search("order 4", frozenset(task.name for task in tasks), 4)]


@lru_cache(maxsize=64)
def trainer(name: str, first: int, settings: Settings) -> Trainer:
    """The trainer of a task with its splits from ``first`` on, kept in its process."""
    task = TASKS[name]
    data = [task.data(first + i) for i in range(settings.splits)]
    return Trainer(task.training, data, settings.device, settings.stack, settings.graphs)


def trained(request: tuple[str, int, list[tuple[Criterion, int, int]]], settings: Settings) -> np.ndarray:
    """Validation and test accuracy of criteria on a task, shape (members, 2); a failed one has 0."""
    torch.set_num_threads(1)
    name, first, rows = request
    members = [Member(criterion, split, seed, test=True) for criterion, split, seed in rows]
    return np.nan_to_num(np.array(trainer(name, first, settings)(members)).reshape(-1, 2))


def at(criterion: Criterion, rate: float) -> Criterion:
    """The criterion at another rate."""
    return Criterion(criterion.losses, criterion.step * rate)


def shape_at(x: X, classes: int) -> Criterion:
    """The loss of a shape, at its factor on the rate."""
    return space(x).for_task(classes).decode(x)


def space(x: X) -> ShapeSpace:
    """The space of shapes of as many numbers."""
    return ShapeSpace(Prior("", tuple(x[:-1]), (1.0,) * (len(x) - 1)))


def gain(err_ce: float, err: float) -> float:
    """The share of cross-entropy's errors that is saved, within [-1, 1]."""
    return float(np.clip((err_ce - err) / (err_ce + 0.02), -1, 1))


def tuned(
    pool: Pool, settings: Settings, wanted: dict[str, list[Criterion]], seeds: Sequence[int], first: int = SPLITS
) -> dict[str, np.ndarray]:
    """Validation and clean test accuracy by task, criterion and split, at the rate that is best by validation.

    Returns:
        Arrays of shape (criteria, splits, 2).
    """
    shape = (-1, settings.splits, len(RATES), len(seeds), 2)
    requests = [
        (name, first, [(at(c, r), s, seed) for c in criteria for s in range(shape[1]) for r in RATES for seed in seeds])
        for name, criteria in wanted.items()
    ]
    found = {}
    for name, values in zip(wanted, pool(requests), strict=True):
        means = values.reshape(shape).mean(3)  # over seeds: (criteria, splits, rates, 2)
        best = means[..., 0].argmax(-1)[..., None, None]
        found[name] = np.take_along_axis(means, best, 2)[:, :, 0]
    return found


def search(
    pool: Pool, settings: Settings, tasks: Sequence[Task], plan: Sequence[Search], base: dict[str, np.ndarray]
) -> tuple[dict[str, list[X]], list[tuple[float, int, X]]]:
    """Run all searches side by side, with several seeds each.

    Returns:
        The means of the last distributions of each search, and the candidates of the first one: fitness, generation, x.
    """
    keys = [(one, seed) for one in plan for seed in range(settings.searches)]
    runs = {
        key: cma.CMAEvolutionStrategy(
            list(STARTS[key[0].order]),
            1.0,
            {"popsize": settings.population, "CMA_stds": list(SPREAD[key[0].order]), "verbose": -9, "seed": 1 + i},
        )
        for i, key in enumerate(keys)
    }
    tried: list[tuple[float, int, X]] = []
    began = time.perf_counter()
    for generation in range(settings.generations):
        if generation and settings.seconds is not None and time.perf_counter() - began > settings.seconds:
            break
        asked = {key: run.ask() for key, run in runs.items()}
        gains = {key: np.full((len(tasks), settings.population), -1.0) for key in keys}
        split, requests, owners = generation % settings.splits, [], []
        for place, task in enumerate(tasks):
            rows = []
            for key in (key for key in keys if task.name in key[0].tasks):
                for i, x in enumerate(asked[key]):
                    criterion = shape_at(x, task.classes)
                    if space(x).for_task(task.classes).feasible(criterion):
                        rates = OWN_RATES[task.training.optimizer]
                        rows += [(at(criterion, rate), split, 10_000 + generation) for rate in rates]
                        owners.append((key, place, i))
            requests.append((task.name, SPLITS, rows))
        values = np.concatenate(pool(requests)).reshape(-1, 2, 2)
        for (key, place, i), pair in zip(owners, values, strict=True):
            err_ce = 1 - base[tasks[place].name][0, split, 1]
            gains[key][place, i] = gain(err_ce, 1 - pair[pair[:, 0].argmax(), 1])
        for key, run in runs.items():
            used = [place for place, task in enumerate(tasks) if task.name in key[0].tasks]
            fitness = gains[key][used].mean(0)
            run.tell(asked[key], (-fitness).tolist())
            if key[0] is plan[0]:
                tried += [(float(f), generation, list(x)) for f, x in zip(fitness, asked[key], strict=True)]
            means = " ".join(f"{v:.2f}" for v in run.mean)
            print(f"generation {generation + 1}, {key[0].name}: mean gain {fitness.mean():.3f}, at {means}", flush=True)
    return {one.name: [runs[one, seed].mean.tolist() for seed in range(settings.searches)] for one in plan}, tried


def best_of(
    pool: Pool, settings: Settings, tasks: Sequence[Task], plan: Sequence[Search], means: dict[str, list[X]]
) -> dict[str, X]:
    """The mean of each search, of its seeds the one with the largest gain on fresh seeds of the tasks it has seen."""
    wanted = {
        task.name: [Criterion.original(), *(shape_at(x, task.classes) for found in means.values() for x in found)]
        for task in tasks
    }
    values = tuned(pool, settings, wanted, [3])
    chosen = {}
    for place, one in enumerate(plan):
        rows = range(1 + place * settings.searches, 1 + (place + 1) * settings.searches)
        scores = [fmean(mean_gain(values[name], row) for name in one.tasks) for row in rows]
        chosen[one.name] = means[one.name][int(np.argmax(scores))]
    return chosen


def mean_gain(values: np.ndarray, row: int) -> float:
    """The mean over splits of the gain of a criterion on the first one, cross-entropy."""
    return fmean(gain(1 - ce, 1 - own) for ce, own in zip(values[0, :, 1], values[row, :, 1], strict=True))


def compared(
    pool: Pool, settings: Settings, tasks: Sequence[Task], own: Callable[[Task], dict[str, X]]
) -> list[dict[str, Any]]:
    """Gains by task of known losses, the shipped one and ``own``, on fresh splits with all rates tuned."""
    wanted, names = {}, []
    for task in tasks:
        shapes = {"shipped": [*prior().t, 0.0], **own(task)}
        names = ["ce", *RIVALS, "twin", *shapes]
        found = [shape_at(x, task.classes) for x in shapes.values()]
        wanted[task.name] = [Criterion.original(), *RIVALS.values(), of_twin(task.classes), *found]
    values = tuned(pool, settings, wanted, [4, 5], FRESH)
    rows = []
    for task in tasks:
        mine = values[task.name]
        gains = {name: round(mean_gain(mine, row), 4) for row, name in enumerate(names) if row}
        if {"noisy", "cleaner"} <= set(names):
            # Two centres in place of one: whichever validates better, and whichever suits the true share of noise
            pair = mine[[names.index("noisy"), names.index("cleaner")]]
            chosen = np.take_along_axis(pair, pair[..., 0].argmax(0)[None, :, None], 0)
            gains["two, by validation"] = round(mean_gain(np.concatenate([mine[:1], chosen]), 1), 4)
            gains["two, by true noise"] = gains["noisy" if task.noise >= NOISY else "cleaner"]
        rows.append({"task": task.name, "family": task.family, "noise": task.noise, "gain": gains})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and worst gain on tasks with many, some and no wrong labels."""
    kinds = {
        "noisy": [row for row in rows if row["noise"] >= NOISY],
        "some": [row for row in rows if 0 < row["noise"] < NOISY],
        "clean": [row for row in rows if not row["noise"]],
    }
    result: dict[str, dict[str, float]] = {}
    for kind, chosen in kinds.items():
        for name in chosen[0]["gain"] if chosen else ():
            values = [row["gain"][name] for row in chosen]
            figures = {"mean": round(fmean(values), 3), "worst": round(min(values), 3), "tasks": len(values)}
            result.setdefault(name, {}).update({f"{kind}_{key}": value for key, value in figures.items()})
    return result


def make(settings: Settings, pool: Pool, tasks: Sequence[Task], unseen: Sequence[Task], name: str) -> dict[str, Any]:
    """Search, hold out, compare; return the prior as the package reads it."""
    plan = searches(tasks)
    base = tuned(pool, settings, {task.name: [Criterion.original()] for task in tasks}, [1, 2])
    means, tried = search(pool, settings, tasks, plan, base)
    chosen = best_of(pool, settings, tasks, plan, means)
    centre = chosen["all"]
    without = {task.name: next(chosen[one.name] for one in plan[1:] if task.name not in one.tasks) for task in tasks}
    variants = {n: chosen[n] for n in ("all", "noisy", "cleaner", "order 4") if n in chosen}
    tables = {
        "source": compared(pool, settings, tasks, lambda task: {"held out": without[task.name], **variants}),
        "real_data": compared(pool, settings, unseen, lambda task: variants),
    }
    generations = 1 + max(generation for _, generation, _ in tried)
    late = [c for c in tried if c[1] >= generations // 2]
    elite = np.array([x for *_, x in sorted(late, key=lambda c: -c[0])[: max(4, len(late) // 4)]])
    return {
        "name": name,
        "order": 3,
        "centre": {"t": [round(v, 4) for v in centre[:-1]]},
        "spread": [round(max(float(v), 0.05), 4) for v in elite[:, :-1].std(0)],
        "provenance": {
            "method": "CMA-ES on the mean over tasks of the gain (err_ce - err) / (err_ce + 0.02), clipped to [-1, 1]; "
            "spread: standard deviation of the best quarter of the candidates of the later half",
            "search": asdict(settings) | {"start": STARTS, "spread": SPREAD, "rates": OWN_RATES, "rates_ce": RATES},
            "generations": generations,
            "log_step": round(centre[-1], 4),
            "centres": {key: [[round(v, 3) for v in x] for x in found] for key, found in means.items()},
            "tasks": [task.name for task in tasks],
            "splits": {"searches": SPLITS, "tables": FRESH, "each": settings.splits},
            **{key: {"summary": summary(rows), "tasks": rows} for key, rows in tables.items()},
            "versions": {"torch": torch.__version__, "python": platform.python_version()}
            | {package: version(package) for package in ("cma", "numpy", "scikit-learn")},
            "device": torch.cuda.get_device_name() if settings.device.startswith("cuda") else "cpu",
        },
    }


TITLES = {
    "source": "Fresh splits of the source tasks; 'held out' was found without the group of the task",
    "real_data": "Real data that no search used",
}


def printed(title: str, rows: dict[str, dict[str, float]]) -> str:
    """A summary as a table."""
    heads = list(next(iter(rows.values()), {}))
    lines = [title, "", f"| loss | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    lines += [f"| {name} | {' | '.join(f'{row[h]:g}' for h in heads)} |" for name, row in rows.items()]
    return "\n".join(lines)


TASKS = {task.name: task for task in (*source_tasks(), *unseen_tasks())}


def main(argv: list[str] | None = None) -> None:
    """Make a prior, write it, print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few tasks, generations and candidates")
    parser.add_argument("--generations", type=int)
    parser.add_argument("--population", type=int)
    parser.add_argument("--searches", type=int, help="seeds of each search")
    parser.add_argument("--seconds", type=float, help="begin no further generation after that long")
    parser.add_argument("--tasks", help="only tasks whose name contains one of these texts, separated by ';'")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, which share the tasks")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--name", default="trial", help="name of the prior")
    parser.add_argument("--output", type=Path, help="outputs/prior/NAME.json by default")
    args = parser.parse_args(argv)
    sizes = {"generations": 3, "population": 6, "searches": 1, "splits": 1} if args.small else {}
    given = {
        n: getattr(args, n)
        for n in ("generations", "population", "searches", "seconds")
        if getattr(args, n) is not None
    }
    settings = Settings(**{**sizes, **given}, device=args.device, graphs=not args.eager)
    tasks, unseen = source_tasks(), unseen_tasks()
    texts = args.tasks.split(";") if args.tasks else ["iris", "blobs 3", "quantiles 4", "digits, 40% wrong, mlp, adam"]
    if args.small or args.tasks:
        tasks, unseen = ([task for task in part if any(t in task.name for t in texts)] for part in (tasks, unseen))
    if sum(any(task.family in group for task in tasks) for group in HELD_OUT) < 2:
        parser.error("--tasks must leave tasks of at least two of the groups: each is held out once.")
    warnings.filterwarnings("ignore", category=UserWarning, module="cma")
    output = args.output or Path("outputs/prior") / f"{args.name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    began, work = time.perf_counter(), partial(trained, settings=settings)
    if args.jobs > 1:
        with mp.get_context("spawn").Pool(args.jobs) as processes:
            result = make(settings, partial(processes.map, work, chunksize=1), tasks, unseen, args.name)
    else:
        result = make(settings, lambda requests: list(map(work, requests)), tasks, unseen, args.name)
    result["provenance"]["seconds"] = round(time.perf_counter() - began)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for key, title in TITLES.items():
        print(printed(title, result["provenance"][key]["summary"]), end="\n\n")
    print(f"t = {result['centre']['t']}, spread {result['spread']}; {output}")
