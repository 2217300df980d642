"""The scenarios: data, network, training. Add one with ``add(Scenario(...))``, here or in a file of your own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from benchmarks.worth.trainer import CNN, MLP, Shifts, Training

# Inputs and labels for training, validation and test
Split = tuple[np.ndarray, ...]
FOLDERS = {"data": Path("../shared/data"), "cache": Path("outputs/worth")}
MOST = 2000  # test samples


@dataclass(frozen=True)
class Scenario:
    """One task.

    Attributes:
        name: what it is called in results.
        data: draws the split of a seed; all splits have the same sizes.
        training: network, optimizer, length, metric.
        group: what is pooled in the table: ``"noise"``, ``"human"``, ``"clean"``, ``"other"``.
        needs: file of features that must be made first, see ``features.py``; ``""`` for none.
    """

    name: str
    data: Callable[[int], Split]
    training: Training
    group: str = "noise"
    needs: str = ""


SCENARIOS: dict[str, Scenario] = {}


def add(scenario: Scenario) -> None:
    """Enter a scenario."""
    SCENARIOS[scenario.name] = scenario


def wrong(
    y: np.ndarray, classes: int, share: float, draws: np.random.Generator, asymmetric: bool = False
) -> np.ndarray:
    """Labels, a share of them replaced by another class; asymmetric: class k by k + 1."""
    chosen = draws.permutation(len(y))[: round(share * len(y))]
    noisy = y.copy()
    noisy[chosen] = (y[chosen] + (1 if asymmetric else draws.integers(1, classes, len(chosen)))) % classes
    return noisy


@lru_cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of a data set of scikit-learn, or of a file of features."""
    from sklearn import datasets

    if name in ("digits", "iris", "wine", "breast_cancer"):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return (x / 16 if name == "digits" else x), y
    stored = np.load(FOLDERS["cache"] / f"{name}.npz")
    return stored["x"].astype(np.float32), stored["y"].astype(np.int64)


def drawn(
    seed: int,
    source: str,
    sizes: tuple[float, float],
    noise: float = 0.0,
    asymmetric: bool = False,
    standardised: bool = False,
    labels: str = "",
) -> Split:
    """Random rows for training and validation, with wrong labels in both; the rest, up to 2,000, are for testing.

    Args:
        seed: of the split.
        source: data set, see `table`. Rows beyond its labels' number of a file with ``test`` rows are for testing.
        sizes: rows for training and for validation, or shares of all.
        noise: share of wrong labels.
        asymmetric: whether class k becomes k + 1.
        standardised: whether features get mean 0 and standard deviation 1 in training.
        labels: column of labels given by people, in place of drawn noise.
    """
    draws = np.random.default_rng(seed)
    x, y = table(source)
    n, classes = len(y), int(y.max()) + 1
    last = n - TESTS.get(source, 0)
    rows = draws.permutation(last)
    count = [size if size > 1 else round(size * n) for size in sizes]
    train, val, rest = np.split(rows, np.cumsum(count).astype(int))
    test = np.arange(last, n) if source in TESTS else rest[:MOST]
    if standardised:
        x = (x - x[train].mean(0)) / (x[train].std(0) + 1e-8)
    if labels:
        given = np.load(FOLDERS["cache"] / f"{source}.npz")[labels].astype(np.int64)
        noisy = [given[train], given[val]]
    else:
        noisy = [wrong(y[part], classes, noise, draws, asymmetric) for part in (train, val)]
    return x[train], noisy[0], x[val], noisy[1], x[test], y[test]


TESTS = {"cifar_head": 2000, "cifar16": 2000}  # rows at the end that are for testing


def unbalanced(seed: int, ratio: int = 50) -> Split:
    """Digits: the class of rank k keeps ``max(2, round(100 ratio^(-k/9)))`` samples; 20 of each class to validate."""
    draws = np.random.default_rng(seed)
    x, y = table("digits")
    parts: list[list[np.ndarray]] = [[], [], []]
    for rank, label in enumerate(draws.permutation(10)):
        rows = draws.permutation(np.flatnonzero(y == label))
        count = max(2, round(100 * ratio ** (-rank / 9)))
        for part, chosen in zip(parts, np.split(rows, [count, count + 20]), strict=True):
            part.append(chosen)
    return tuple(values for part in map(np.concatenate, parts) for values in (x[part], y[part]))


digits = partial(drawn, source="digits", sizes=(600, 400))
mnist = partial(drawn, source="mnist14", sizes=(600, 400))
cifar = partial(drawn, source="cifar_head", sizes=(1500, 700))
human = partial(drawn, source="cifar_head", sizes=(3000, 1000))
small = MLP((64, 64, 10))
adam = partial(Training, optimizer="adam")
on_digits = adam(small, lr=0.02, epochs=40)
on_mnist = adam(MLP((196, 64, 10)), lr=0.01, epochs=30)

for percent in (20, 40, 60):
    add(Scenario(f"digits {percent} %", partial(digits, noise=percent / 100), on_digits))
add(Scenario("digits asymmetric 40 %", partial(digits, noise=0.4, asymmetric=True), on_digits))
sgd = Training(small, "sgd", lr=0.1, epochs=40)
add(Scenario("digits SGD 40 %", partial(digits, noise=0.4), sgd))
add(Scenario("MNIST Adam 40 %", partial(mnist, noise=0.4), on_mnist, needs="mnist14"))
momentum = Training(MLP((196, 64, 10)), "sgd", lr=0.1, momentum=0.9, epochs=30)
add(Scenario("MNIST SGD 40 %", partial(mnist, noise=0.4), momentum, needs="mnist14"))
head = adam(MLP((128, 10)), lr=0.01, epochs=20)
add(Scenario("CIFAR head 40 %", partial(cifar, noise=0.4), head, needs="cifar_head"))
shares = {"sizes": (0.4, 0.2), "standardised": True}
of_wine, of_cancer = (adam(MLP((d, 32, n)), lr=0.02, epochs=40, batch=32) for d, n in ((13, 3), (30, 2)))
add(Scenario("wine 30 %", partial(drawn, source="wine", noise=0.3, **shares), of_wine))
add(Scenario("breast cancer 30 %", partial(drawn, source="breast_cancer", noise=0.3, **shares), of_cancer))
cnn = adam(CNN((1, 8, 8), (8, 16), 10), lr=0.01, epochs=20)
add(Scenario("digits CNN 40 %", partial(digits, noise=0.4), cnn, "more"))
shifted = replace(cnn, augment=Shifts((1, 8, 8)))
add(Scenario("digits CNN 40 %, shifted", partial(digits, noise=0.4), shifted, "more"))
pixels = partial(drawn, source="cifar16", sizes=(1000, 500))
whole = adam(CNN((3, 16, 16), (8, 16), 10), lr=0.01, epochs=10, augment=Shifts((3, 16, 16), flip=True))
add(Scenario("CIFAR CNN 40 %, shifted, mirrored", partial(pixels, noise=0.4), whole, "more", needs="cifar16"))
decay = adam(small, lr=0.02, epochs=40, weight_decay=0.1)
add(Scenario("digits AdamW 40 %", partial(digits, noise=0.4), decay, "more"))
for labels, net in (("worse", "linear"), ("worse", "MLP"), ("random1", "MLP"), ("aggregate", "MLP")):
    sizes = (128, 64, 10) if net == "MLP" else (128, 10)
    how = adam(MLP(sizes), lr=0.01, epochs=20)
    add(Scenario(f"CIFAR-10N {labels}, {net}", partial(human, labels=labels), how, "human", needs="cifar_head"))
add(Scenario("digits clean", digits, on_digits, "clean"))
add(Scenario("breast cancer clean", partial(drawn, source="breast_cancer", **shares), of_cancer, "clean"))
for train, val, epochs in ((100, 100, 40), (300, 200, 30)):
    few = adam(MLP((196, 64, 10)), lr=0.01, epochs=epochs)
    add(Scenario(f"MNIST {train} clean", partial(mnist, sizes=(train, val)), few, "clean", needs="mnist14"))
add(Scenario("digits 1:50", unbalanced, adam(small, lr=0.01, epochs=40, metric="recall"), "other"))
add(Scenario("digits NLL", digits, adam(small, lr=0.02, epochs=40, metric="nll"), "other"))
