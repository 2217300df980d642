"""Makes a prior: one loss that is good on many tasks at once, for a search to start from.

CMA-ES searches the shape of a TaylorGLO loss of order 3 and a factor on the learning rate. The fitness is the mean over
the source tasks of the gain ``(err_ce - err) / (err_ce + 0.02)``, clipped to [-1, 1], on clean data. A candidate's rate
is the better of two, by noisy validation; cross-entropy's the best of four. Every family of tasks is held out once:
a search without it, and the table of how its loss does there. The last search uses all.

    python -m recipes.prior --small                      # a try, minutes on two cores
    python -m recipes.prior --device cuda --jobs 12      # the whole, minutes on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Sequence
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
from tglo_lightning.losses.priors import prior
from tglo_lightning.search import Criterion, ShapeSpace

RATES = (3.0, 1.0, 0.3, 0.1)  # of the rivals, and of a found loss in the table
OWN_RATES = {"adam": (1.0, 0.3), "sgd": (3.0, 1.0)}  # of a candidate, times its own factor
START, SPREAD = (0.5, 0.6, 1.0, 0.0), (0.5, 0.6, 0.6, 0.7)
RIVALS = {
    "smoothing": Criterion.of("smoothing", [0.1]),
    "gce": Criterion.of("gce", [0.7]),
    "sce": Criterion.of("sce", [0.1, 1.0]),
    "nce_rce": Criterion.of("nce_rce", [4.0]),
}


@dataclass(frozen=True)
class Settings:
    """How large the search is, and where it runs; after ``seconds`` no further generation begins."""

    generations: int = 14
    population: int = 20
    searches: int = 3
    splits: int = 3
    device: str = "cpu"
    stack: int = 0
    graphs: bool = True
    seconds: float | None = None


@lru_cache(maxsize=64)
def trainer(name: str, settings: Settings) -> Trainer:
    """The trainer of a task, kept in its process."""
    task = TASKS[name]
    data = [task.data(200 + i) for i in range(settings.splits)]
    return Trainer(task.training, data, settings.device, settings.stack, settings.graphs)


def trained(request: tuple[str, list[tuple[Criterion, int, int]]], settings: Settings) -> np.ndarray:
    """Validation and test accuracy of criteria on a task, shape (members, 2); a failed one has 0."""
    torch.set_num_threads(1)
    name, rows = request
    members = [Member(criterion, split, seed, test=True) for criterion, split, seed in rows]
    return np.nan_to_num(np.array(trainer(name, settings)(members)).reshape(-1, 2))


def at(criterion: Criterion, rate: float) -> Criterion:
    """The criterion at another rate."""
    return Criterion(criterion.losses, criterion.step * rate)


def gain(err_ce: float, err: float) -> float:
    """The share of cross-entropy's errors that is saved, within [-1, 1]."""
    return float(np.clip((err_ce - err) / (err_ce + 0.02), -1, 1))


def tuned_errors(
    pool: Any, settings: Settings, wanted: dict[str, list[Criterion]], seeds: Sequence[int]
) -> dict[str, list[list[float]]]:
    """Clean error of criteria by task and split, at the rate that is best by validation over all ``seeds``."""
    shape = (settings.splits, len(RATES), len(seeds), 2)
    requests = [
        (
            name,
            [
                (at(c, rate), split, seed)
                for c in criteria
                for split in range(shape[0])
                for rate in RATES
                for seed in seeds
            ],
        )
        for name, criteria in wanted.items()
    ]
    found: dict[str, list[list[float]]] = {}
    for (name, criteria), values in zip(wanted.items(), pool(requests), strict=True):
        means = values.reshape(len(criteria), *shape).mean(3)  # over seeds: (criteria, splits, rates, 2)
        best = means[..., 0].argmax(-1)
        found[name] = (1 - np.take_along_axis(means[..., 1], best[..., None], -1)[..., 0]).tolist()
    return found


def search(pool: Any, settings: Settings, tasks: Sequence[Task], base: dict[str, list[float]]) -> dict[str, list[Any]]:
    """Search once for each family, without it, and once on all (``""``), with several seeds each, side by side.

    Returns:
        For each search the means of its last distributions, and every candidate with its fitness.
    """
    held = [*dict.fromkeys(task.family for task in tasks), ""]
    keys = [(fold, seed) for fold in held for seed in range(settings.searches)]
    options = {"popsize": settings.population, "CMA_stds": list(SPREAD), "verbose": -9}
    runs = {key: cma.CMAEvolutionStrategy(list(START), 1.0, {**options, "seed": 1 + i}) for i, key in enumerate(keys)}
    tried: dict[str, list[Any]] = {fold: [] for fold in held}
    began = time.perf_counter()
    for generation in range(settings.generations):
        if generation and settings.seconds is not None and time.perf_counter() - began > settings.seconds:
            break
        asked = {key: run.ask() for key, run in runs.items()}
        gains = {key: np.full((len(tasks), settings.population), -1.0) for key in keys}
        split, requests, places = generation % settings.splits, [], []
        for place, task in enumerate(tasks):
            space, rows, owners = ShapeSpace().for_task(task.classes), [], []
            for key in keys:
                if key[0] == task.family:
                    continue
                for i, x in enumerate(asked[key]):
                    criterion = space.decode(x)
                    if space.feasible(criterion):
                        rates = OWN_RATES[task.training.optimizer]
                        rows += [(at(criterion, rate), split, 10_000 + generation) for rate in rates]
                        owners.append((key, i))
            requests.append((task.name, rows))
            places.append((place, owners))
        for (place, owners), values in zip(places, pool(requests), strict=True):
            err_ce = base[tasks[place].name][split]
            for (key, i), pair in zip(owners, values.reshape(-1, 2, 2), strict=True):
                gains[key][place, i] = gain(err_ce, 1 - pair[pair[:, 0].argmax(), 1])
        for key, run in runs.items():
            used = [place for place, task in enumerate(tasks) if task.family != key[0]]
            fitness = gains[key][used].mean(0)
            run.tell(asked[key], (-fitness).tolist())
            tried[key[0]] += [
                (float(f), generation, [float(v) for v in x]) for f, x in zip(fitness, asked[key], strict=True)
            ]
        print(
            f"generation {generation + 1}: mean gain {fmean(f for f, g, _ in tried[''] if g == generation):.3f}",
            flush=True,
        )
    return {fold: [[runs[fold, seed].mean.tolist() for seed in range(settings.searches)], tried[fold]] for fold in held}


def shape_at(x: Sequence[float], classes: int) -> Criterion:
    """The loss of a shape, at its factor on the rate."""
    return ShapeSpace().for_task(classes).decode(x)


def compared(
    pool: Any, settings: Settings, tasks: Sequence[Task], own: dict[str, Sequence[float]], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Gains by task of rivals, the prototype's loss and ``own``, a shape for each family, all rates tuned."""
    names = ["ce", *RIVALS, "twin", "shipped", "found"]
    wanted = {}
    for task in tasks:
        n = task.classes
        both = [shape_at([*prior().t, 0.0], n), shape_at(own[task.family], n)]
        wanted[task.name] = [Criterion.original(), *RIVALS.values(), of_twin(n), *both]
    errors = tuned_errors(pool, settings, wanted, seeds)
    rows = []
    for task in tasks:
        base, *others = errors[task.name]
        found = {n: round(fmean(map(gain, base, e)), 4) for n, e in zip(names[1:], others, strict=True)}
        rows.append({"task": task.name, "family": task.family, "noise": task.noise, "gain": found})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and worst gain on noisy and on clean tasks."""
    result = {}
    for kind, chosen in (("noisy", [r for r in rows if r["noise"]]), ("clean", [r for r in rows if not r["noise"]])):
        for name in chosen[0]["gain"] if chosen else ():
            values = [row["gain"][name] for row in chosen]
            result.setdefault(name, {}).update(
                {
                    f"{kind}_mean": round(fmean(values), 3),
                    f"{kind}_worst": round(min(values), 3),
                    f"{kind}_tasks": len(values),
                }
            )
    return result


def make(settings: Settings, pool: Any, tasks: Sequence[Task], unseen: Sequence[Task], name: str) -> dict[str, Any]:
    """Search, hold out, compare; return the prior as the package reads it."""
    ce = {task.name: [Criterion.original()] for task in tasks}
    base = {name: errors[0] for name, errors in tuned_errors(pool, settings, ce, [1, 2]).items()}
    found = search(pool, settings, tasks, base)
    # Of several searches the one whose mean is best on fresh seeds of the tasks it has seen
    chosen = {}
    means = [x for fold in found for x in found[fold][0]]
    wanted = {task.name: [shape_at(x, task.classes) for x in means] for task in tasks}
    errors = tuned_errors(pool, settings, wanted, [3])
    scores = {task.name: [fmean(map(gain, base[task.name], e)) for e in errors[task.name]] for task in tasks}
    for place, fold in enumerate(found):
        first = place * settings.searches
        used = [scores[task.name][first : first + settings.searches] for task in tasks if task.family != fold]
        chosen[fold] = found[fold][0][int(np.mean(used, axis=0).argmax())]
    centre = chosen.pop("")
    held_out = compared(pool, settings, tasks, chosen, [4, 5])
    real = compared(pool, settings, unseen, {task.family: centre for task in unseen}, [4, 5])
    generations = 1 + max(generation for _, generation, _ in found[""][1])
    late = [c for c in found[""][1] if c[1] >= generations // 2]
    elite = np.array([x for *_, x in sorted(late, key=lambda c: -c[0])[: max(4, len(late) // 4)]])
    return {
        "name": name,
        "order": 3,
        "centre": {"t": [round(v, 4) for v in centre[:3]]},
        "spread": [round(max(float(v), 0.05), 4) for v in elite[:, :3].std(0)],
        "provenance": {
            "method": "CMA-ES on the mean over tasks of the gain (err_ce - err) / (err_ce + 0.02), clipped to [-1, 1]; "
            "spread: standard deviation of the best quarter of the candidates of the later half",
            "search": asdict(settings) | {"start": START, "spread": SPREAD, "rates": OWN_RATES, "rates_ce": RATES},
            "generations": generations,
            "log_step": round(centre[3], 4),
            "centres": {fold or "all": [[round(v, 3) for v in x] for x in found[fold][0]] for fold in found},
            "tasks": [task.name for task in tasks],
            "seeds": {"splits": [200 + i for i in range(settings.splits)], "searches": settings.searches},
            "held_out": {
                "summary": summary(held_out),
                "tasks": held_out,
                "note": "each family with a loss found without it",
            },
            "real_data": {"summary": summary(real), "tasks": real, "note": "data sets that no search used"},
            "versions": {"torch": torch.__version__, "python": platform.python_version()}
            | {package: version(package) for package in ("cma", "numpy", "scikit-learn")},
            "device": torch.cuda.get_device_name() if settings.device.startswith("cuda") else "cpu",
        },
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
    for title, key in (("Families held out", "held_out"), ("Real data", "real_data")):
        print(printed(title, result["provenance"][key]["summary"]), end="\n\n")
    print(f"t = {result['centre']['t']}, spread {result['spread']}; {output}")
