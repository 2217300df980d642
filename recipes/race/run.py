"""Races against cross-entropy of the same cost, on fresh splits: which network is better on clean test data?

    python -m benchmarks.worth --prepare --data FOLDER
    python -m recipes.race.run [--splits 8] [--output result.json]

The first makes features of CIFAR-10 images, with labels given by people. Every method keeps the network of its best
check by validation, ten checks a training. All networks of a split are trained once; what halving, other scores and
ensembles would have kept is read off their curves.
"""

import argparse
import json
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import t
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.worth.scenarios import human
from tglo_lightning import TaylorGLO
from tglo_lightning.data import DigitsDataModule, TabularDataModule
from tglo_lightning.evaluation import InnerFit, VectorizedEvaluator, probe
from tglo_lightning.losses import CrossEntropyLoss
from tglo_lightning.models import MLP, Classifier
from tglo_lightning.module import LossSlots
from tglo_lightning.search import Budget, Criterion, Objective, Race, SearchSettings, presets, search


class HumanLabels(pl.LightningDataModule):
    """CIFAR-10N, each label the worst of three given by people: 3,000 features to train, 1,000 to validate."""

    input_shape, num_classes = (128,), 10

    def __init__(self, seed: int) -> None:
        super().__init__()
        tensors = [torch.as_tensor(part) for part in human(seed, labels="worse")]
        self.parts = [TensorDataset(x.float(), y) for x, y in zip(tensors[::2], tensors[1::2], strict=True)]

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of 64, shuffled."""
        return DataLoader(self.parts[0], 64, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Labels given by people."""
        return DataLoader(self.parts[1], 1000)

    def test_dataloader(self) -> DataLoader[Any]:
        """True labels."""
        return DataLoader(self.parts[2], 2000)


TASKS: dict[str, tuple[Callable[[int], Any], int, float]] = {
    "digits, 40 % wrong labels": (
        lambda seed: DigitsDataModule(train_size=600, val_size=400, label_noise=0.4, seed=seed),
        40,
        0.02,
    ),
    "digits, clean": (lambda seed: DigitsDataModule(train_size=1000, val_size=400, seed=seed), 40, 0.02),
    "breast cancer, 30 % wrong labels": (
        lambda seed: TabularDataModule(source="breast_cancer", label_noise=0.3, seed=seed),
        40,
        0.02,
    ),
    "CIFAR-10N, labels by people": (HumanLabels, 20, 0.01),
}
RATES = (1.0, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 2.0, 3.0, 5.0)
RACE = Race(halving=False)
COSTS = {  # trainings; that of the default search is counted
    "cross-entropy, last epoch": 1,
    "cross-entropy": 1,
    "race, four members": 4,
    "race": 5.25,
}


class Curves:
    """Networks of one split: their validation accuracy and their outputs on test data, at every check."""

    def __init__(self) -> None:
        self.values: list[list[float]] = []
        self.outputs: list[list[Tensor]] = []

    def best(self, member: int, upto: int | None = None) -> float:
        """The best validation accuracy of a network."""
        return max((v for v in self.values[member][:upto] if math.isfinite(v)), default=-math.inf)

    def kept(self, member: int) -> Tensor:
        """Its outputs at its best check."""
        return self.outputs[member][self.values[member].index(self.best(member))]

    def ranked(self, members: list[int] | None = None) -> list[int]:
        """Networks, the best one first."""
        return sorted(range(len(self.values)) if members is None else members, key=lambda m: -self.best(m))


def trainer(epochs: int, folder: str, *callbacks: Any) -> pl.Trainer:
    """A Trainer that shows and writes nothing."""
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        **dict.fromkeys(silent, False),
    )


def module(data: Any, rate: float) -> Classifier:
    """A network of the digits experiments."""
    net = MLP(input_shape=data.input_shape, num_classes=data.num_classes)
    return Classifier(net, CrossEntropyLoss(), data.num_classes, partial(torch.optim.Adam, lr=rate))


def inner_fit(data: Any, epochs: int, rate: float, folder: str) -> InnerFit:
    """What a search of this fit would train with."""
    found = []

    class Catch(pl.Callback):
        def on_fit_start(self, outer: Any, pl_module: Any) -> None:
            init = partial(module, data, rate)
            fit = InnerFit(outer, pl_module, LossSlots("criterion"), "val/acc", Budget(epochs=epochs), init)
            probe(fit)
            found.append(fit)
            raise NotImplementedError  # the rest of the fit is of no interest

    with suppress(NotImplementedError):
        trainer(epochs, folder, Catch()).fit(module(data, rate), datamodule=data)
    return found[0]


def train(fit: InnerFit, criteria: list[Criterion], seed: int, inputs: Tensor, curves: Curves) -> None:
    """Train networks side by side, and add their curves."""
    evaluator = VectorizedEvaluator()
    evaluator.setup(fit)
    network = fit.candidate(Criterion.original(), 0)
    network.eval()
    first = len(curves.values)
    curves.values += [[] for _ in criteria]
    curves.outputs += [[] for _ in criteria]
    with closing(evaluator.start(criteria, seed)) as population, torch.no_grad():
        for at in RACE.checks(population.length):
            population.advance(at - population.trained)
            for member, score in enumerate(population.scores()):
                curves.values[first + member].append(score.fitness if score.ok else math.nan)
                weights = population.weights(member)
                network.load_state_dict({n: v for n, v in weights.items() if n.startswith("net.")}, strict=False)
                curves.outputs[first + member].append(network(inputs).softmax(1))


def halved(curves: Curves) -> Tensor:
    """What is kept if half of the networks end after a quarter, and half of the rest after a half."""
    members, ends = list(range(len(curves.values))), dict.fromkeys(range(len(curves.values)), 10)
    for check in (3, 5):  # of ten
        members.sort(key=lambda m: -curves.best(m, check))
        for ended in members[math.ceil(len(members) / 2) :]:
            ends[ended] = check
        members = members[: math.ceil(len(members) / 2)]
    winner = max(sorted(ends), key=lambda m: curves.best(m, ends[m]))
    return curves.outputs[winner][curves.values[winner].index(curves.best(winner, ends[winner]))]


def searched(fit: InnerFit, classes: int, epochs: int, split: int) -> tuple[Criterion, int]:
    """What the default search keeps, the best check of each training counting, and its trainings."""
    evaluator = VectorizedEvaluator()
    evaluator.setup(fit)
    settings = SearchSettings(seed=split, budget=Budget(epochs=epochs, score="best"))
    result = search(evaluator, settings, Objective(classes, "val/acc"))
    return result.criterion, result.trainings


def one_split(task: str, split: int, folder: str) -> tuple[dict[str, float], int]:
    """Test accuracy of what each method keeps on one split, and the trainings of the default search."""
    build, epochs, rate = TASKS[task]
    data = build(split)
    data.prepare_data()
    data.setup("fit")
    inputs, target = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    fit = inner_fit(data, epochs, rate, folder)
    seed = SearchSettings(seed=split).training_seed("generation", 0)
    race, rates, seeds = Curves(), Curves(), Curves()
    criteria = presets(data.num_classes)
    train(fit, criteria, seed, inputs, race)
    train(fit, [Criterion.original(step) for step in RATES], seed, inputs, rates)
    for number in range(10):
        train(fit, [Criterion.original()], seed + number, inputs, seeds)
    chosen, trainings = searched(fit, data.num_classes, epochs, split)
    several = race.ranked()[:3]
    last = max(range(10), key=lambda m: race.values[m][-1])
    kept = {
        "cross-entropy, last epoch": race.outputs[0][-1],
        "cross-entropy": race.kept(0),
        "cross-entropy, best of ten": seeds.kept(seeds.ranked()[0]),
        "cross-entropy, ten rates": rates.kept(rates.ranked()[0]),
        # It trains once more with what it found, here from the seed of the others
        "default search": race.kept(criteria.index(chosen)),
        "race": halved(race),
        "race, four members": race.kept(race.ranked([0, 1, 2, 3])[0]),
        "race, last check": race.outputs[last][-1],
        "race, all to the end": race.kept(race.ranked()[0]),
        "race, mean of the best three": torch.stack([race.kept(m) for m in several]).mean(0),
        "cross-entropy, mean of the best three of ten": torch.stack([seeds.kept(m) for m in seeds.ranked()[:3]]).mean(
            0
        ),
    }
    accuracies = {name: float((output.argmax(1) == target).float().mean()) for name, output in kept.items()}
    if split == 0:
        # The callback keeps the same networks
        for name, halving in (("race", True), ("race, all to the end", False)):
            callback = TaylorGLO(
                strategy=Race(halving=halving),
                seed=split,
                init=partial(module, data, rate),
                evaluator="vectorized",
                report=False,
            )
            fitted = module(data, rate)
            trainer(epochs, f"{folder}/{halving}", callback).fit(fitted, datamodule=data)
            [tested] = trainer(1, folder).test(fitted, datamodule=data, verbose=False)
            assert abs(tested["test/acc"] - accuracies[name]) < 1e-4, (tested, accuracies)
    return accuracies, trainings + 1


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences, and its 95 % interval by Student's t."""
    n, mean = len(differences), fmean(differences)
    half = float(t.ppf(0.975, n - 1)) * stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("result.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "tglo_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    started, result, costs = time.process_time(), {}, {}
    for task in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            splits, trainings = zip(*(one_split(task, split, folder) for split in range(arguments.splits)), strict=True)
        result[task] = {name: [round(split[name], 4) for split in splits] for name in splits[0]}
        costs[task] = list(trainings)
        show(task, result[task], costs[task])
    seconds = round(time.process_time() - started)
    found = {"accuracy": result, "trainings_of_the_default_search": costs, "processor_seconds": seconds}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(arguments.output, f"{seconds} s")


def show(task: str, result: dict[str, list[float]], trainings: list[int]) -> None:
    """Print what a task came to, with costs in trainings."""
    print(task)
    for name, values in result.items():
        pairs = [ours - theirs for ours, theirs in zip(result["race"], values, strict=True)]
        cost = fmean(trainings) if name == "default search" else COSTS.get(name, 10)
        line = f"  {name:46} {cost:5.4g} {fmean(values):.3f} ± {stdev(values):.3f}"
        if any(pairs):
            mean, low, high = interval(pairs)
            won, lost = sum(p > 0 for p in pairs), sum(p < 0 for p in pairs)
            line += f"   race better by {mean:+.3f} [{low:+.3f}, {high:+.3f}], {won}:{lost}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
