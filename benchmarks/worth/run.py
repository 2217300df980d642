"""What is a metalearned loss worth beside known losses, at the same budget?

Every method sees the same split, wrong labels, validation data and test seeds. Figures are those of a split: the mean
of five trainings from unseen seeds on clean test data. A run that was stopped goes on where it was.

    python -m benchmarks.worth --small                       # about 10 minutes on two cores
    python -m benchmarks.worth --prepare --data FOLDER       # features of images, once
    python -m benchmarks.worth --device cuda --jobs 12       # all scenarios, methods and splits
    python -m benchmarks.worth --table                       # the tables of what is there

A loss, a method or a scenario of your own goes into one file, ``--plugin FILE``, that calls ``scenarios.add``,
``methods.fixed`` or ``methods.tuned``.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp

from benchmarks.worth import methods as m
from benchmarks.worth import scenarios as s
from benchmarks.worth.features import prepare
from benchmarks.worth.statistics import Results, pooled_table, scenario_table
from benchmarks.worth.trainer import Member, Scores, Trainer, lockstep

SMALL = {
    "scenarios": "digits 40 %;digits asymmetric 40 %;digits SGD 40 %;breast cancer 30 %;digits clean;digits 1:50",
    "methods": "ce;ce, best epoch;ce, rate, best epoch;smoothing;gce;gce, tuned;sce;default;prior, 20;race",
    "splits": "100:103",
}
AGAINST = ["ce", "ce, best epoch", "ce, rate, best epoch", "gce, tuned", "sce, tuned", "mix", "taylorglo from 0"]


def run_scenario(name: str, args: argparse.Namespace) -> str:
    """Run what is missing of a scenario, all methods and splits side by side; append the lines."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*lambda_2|.*orphanated")
    load(args)
    scenario = s.SCENARIOS[name]
    done = {(line["split"], line["method"]) for line in read(args.output) if line["scenario"] == name}
    missing = [(split, way) for split in args.splits for way in args.methods if (split, way) not in done]
    if not missing:
        return f"{name}: nothing to do"
    seeds = sorted({split for split, _ in missing})
    data = [scenario.data(seed) for seed in seeds]
    train = Trainer(scenario.training, data, args.device, args.stack, not args.eager)
    trained = 0

    def counted(members: list[Member]) -> Scores:
        nonlocal trained
        trained += len(members)
        return train(members)

    def task(ask: Any, split: int, way: str) -> None:
        row = seeds.index(split)
        counts = np.bincount(data[row][1])
        bench = m.Bench(scenario, split, row, len(counts), bool(counts.max() > 3 * counts.min()), ask)
        line = m.run(way, bench)
        if line is not None:
            line |= {"seconds": round(time.perf_counter() - began, 1), "device": args.device}
            with args.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    lockstep([partial(task, split=split, way=way) for split, way in missing], counted)
    return f"{name}: {trained} trainings, {time.perf_counter() - began:.0f} s"


def load(args: argparse.Namespace) -> None:
    """Take over folders, and scenarios, methods and losses of one's own."""
    s.FOLDERS.update(data=args.data, cache=args.cache)
    for file in args.plugin:
        runpy.run_path(str(file))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of results; one that was cut off is left out."""
    texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(text) for text in texts if text.endswith("}")]


def tables(lines: list[dict[str, Any]]) -> str:
    """All tables as text."""
    order = {name: place for place, name in enumerate(m.METHODS)}
    places = {name: place for place, name in enumerate(s.SCENARIOS)}
    lines = sorted(lines, key=lambda v: (places.get(v["scenario"], 99), order.get(v["method"], 99)))
    results = Results(lines)
    against = [name for name in AGAINST if name in results.methods]
    groups = [group for group in ("noise", "human", "clean", "more") if any(v["group"] == group for v in lines)]
    parts = [f"{group}\n\n{pooled_table(results, against, [group])}" for group in groups]
    return "\n\n".join([scenario_table(results), *parts])


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="six scenarios, three splits, ten methods")
    parser.add_argument("--scenarios", help="names, separated by ';'")
    parser.add_argument("--methods", help="names, separated by ';'")
    parser.add_argument("--splits", help="seeds FROM:TO, 100:105 by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="scenarios side by side")
    parser.add_argument("--stack", type=int, default=0, help="most members of one pass; 64, or 1024 on a GPU")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--data", type=Path, default=s.FOLDERS["data"], help="folder of images as parquet files")
    parser.add_argument("--cache", type=Path, default=s.FOLDERS["cache"], help="folder of features made from them")
    parser.add_argument("--prepare", action="store_true", help="make the features, and nothing else")
    parser.add_argument("--table", action="store_true", help="print the tables, and run nothing")
    parser.add_argument("--output", type=Path, help="results, outputs/worth/results.jsonl by default")
    parser.add_argument("--plugin", type=Path, action="append", default=[], help="a Python file with more")
    args = parser.parse_args(argv)
    load(args)
    chosen = SMALL if args.small else {"scenarios": ";".join(s.SCENARIOS), "methods": ";".join(m.METHODS)}
    for name, known in (("scenarios", s.SCENARIOS), ("methods", m.METHODS)):
        names = [part.strip() for part in (getattr(args, name) or chosen[name]).split(";")]
        if unknown := [n for n in names if n not in known]:
            parser.error(f"unknown {name}: {', '.join(unknown)}; known: {'; '.join(known)}")
        setattr(args, name, names)
    low, high = (args.splits or chosen.get("splits", "100:105")).split(":")
    args.splits = list(range(int(low), int(high)))
    args.output = args.output or args.cache / ("small.jsonl" if args.small else "results.jsonl")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run, and print the tables."""
    args = parsed(argv)
    if args.prepare:
        return prepare(args.data, args.cache)
    if not args.table:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        if args.output.exists() and not args.output.read_text(encoding="utf-8").endswith("\n"):
            with args.output.open("a", encoding="utf-8") as file:
                file.write("\n")  # after a line that was cut off
        ready = [n for n in args.scenarios if not s.SCENARIOS[n].needs or features(args, n).exists()]
        if lacking := [n for n in args.scenarios if n not in ready]:
            print(f"Left out for lack of features, make them by --prepare --data FOLDER: {'; '.join(lacking)}")
        ready.sort(key=lambda name: s.SCENARIOS[name].needs != "cifar_head")  # the longest first
        work = partial(run_scenario, args=args)
        if args.jobs > 1 and len(ready) > 1:
            with mp.get_context("spawn").Pool(min(args.jobs, len(ready))) as pool:
                for told in pool.imap_unordered(work, ready, chunksize=1):
                    print(told, flush=True)
        else:
            for name in ready:
                print(work(name), flush=True)
    text = tables(read(args.output))
    args.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)


def features(args: argparse.Namespace, name: str) -> Path:
    """The file that a scenario needs."""
    return args.cache / f"{s.SCENARIOS[name].needs}.npz"
