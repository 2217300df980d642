"""The source tasks: small, made from a seed or shipped with scikit-learn, and none of the scenarios of the benchmark.

So what the benchmark reports on its data sets was never tuned on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sklearn import datasets

from benchmarks.worth.scenarios import Split, cnn, drawn, of_cancer, of_wine, on_digits, sgd, wrong
from benchmarks.worth.trainer import CNN, MLP, Training

Make = Callable[[int, np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Task:
    """One source task.

    Attributes:
        family: tasks of one family are held out together.
        noise: share of wrong labels in training and validation.
        data: draws the split of a seed.
    """

    name: str
    family: str
    classes: int
    noise: float
    data: Callable[[int], Split]
    training: Training


def classification(classes: int, draws: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clusters on the corners of a hypercube, two a class up to ten classes, with useless features."""
    clusters = 2 if classes <= 10 else 1
    return datasets.make_classification(
        count, 24, n_informative=12, n_redundant=4, n_classes=classes, n_clusters_per_class=clusters, class_sep=1.5,
        flip_y=0.0, random_state=int(draws.integers(2**31)),
    )  # fmt: skip


def blobs(classes: int, draws: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One Gaussian a class, overlapping a little."""
    centres = draws.normal(size=(classes, 16)) * 2.2
    y = draws.integers(0, classes, count)
    return centres[y] + draws.normal(size=(count, 16)) * 1.5, y


def teacher(classes: int, draws: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian inputs, labelled by a random network."""
    x = draws.normal(size=(count, 12))
    hidden = np.tanh(x @ draws.normal(size=(12, 24)) * 0.5)
    scores = hidden @ draws.normal(size=(24, classes))
    return x, (scores - scores.mean(0)).argmax(1)


def quantiles(classes: int, draws: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shells around the origin."""
    seed = int(draws.integers(2**31))
    return datasets.make_gaussian_quantiles(n_samples=count, n_features=5, n_classes=classes, random_state=seed)


def images(classes: int, draws: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """8x8 images: a smooth pattern for each class, shifted by up to a pixel, dimmed, with noise."""
    coarse = draws.normal(size=(classes, 5, 5))
    patterns = coarse.repeat(2, 1).repeat(2, 2)
    y = draws.integers(0, classes, count)
    tops, lefts = draws.integers(0, 3, (2, count))
    steps = np.arange(8)
    x = patterns[y[:, None, None], (tops[:, None] + steps)[:, :, None], (lefts[:, None] + steps)[:, None, :]]
    return (x * draws.uniform(0.5, 1.5, (count, 1, 1)) + draws.normal(size=x.shape) * 0.7).reshape(count, 64), y


def sampled(
    seed: int, make: Callable[..., tuple[np.ndarray, np.ndarray]], classes: int, train: int, noise: float
) -> Split:
    """A split of a made data set: ``train`` samples, two thirds of that to validate, 1,000 to test."""
    draws = np.random.default_rng([seed, classes, len(make.__name__)])
    val = train * 2 // 3
    x, y = make(classes, draws, train + val + 1000)
    x = (x - x[:train].mean(0)) / (x[:train].std(0) + 1e-8)
    parts = [(x[rows], y[rows]) for rows in np.split(draws.permutation(len(y)), [train, train + val])]
    labels = [wrong(values, classes, noise, draws, False) for _, values in parts[:2]] + [parts[2][1]]
    return tuple(part for (inputs, _), given in zip(parts, labels, strict=True) for part in (inputs, given))


def made(make: Make, width: int, rows: list[tuple]) -> list[Task]:
    """Tasks of one family, from rows of classes, samples, noise, optimizer, rate, epochs, network."""
    tasks = []
    for classes, train, noise, optimizer, lr, epochs, net in rows:
        sizes = {"mlp": (width, 64, classes), "deep": (width, 64, 64, classes), "linear": (width, classes)}
        network = CNN((1, 8, 8), (8, 16), classes) if net == "cnn" else MLP(sizes[net])
        data = partial(sampled, make=make, classes=classes, train=train, noise=noise)
        name = f"{make.__name__} {classes}, {noise:.0%} wrong, {net}, {optimizer} {lr:g}"
        momentum = 0.9 if optimizer == "sgd" and lr < 0.1 else 0.0
        how = Training(network, optimizer, lr=lr, epochs=epochs, momentum=momentum)
        tasks.append(Task(name, make.__name__, classes, noise, data, how))
    return tasks


def source_tasks() -> list[Task]:
    """The tasks that the prior is searched on."""
    iris = [
        Task(f"iris, {noise:.0%} wrong, {opt}", "iris", 3, noise,
             partial(drawn, source="iris", sizes=(60, 40), noise=noise, standardised=True),
             Training(MLP((4, 32, 3)), opt, lr=lr, epochs=40, batch=16))
        for noise, opt, lr in ((0.0, "adam", 0.02), (0.2, "sgd", 0.3), (0.4, "adam", 0.02))
    ]  # fmt: skip
    return [
        *made(classification, 24, [
            (2, 300, 0.2, "adam", 0.02, 40, "mlp"), (5, 600, 0.4, "adam", 0.01, 30, "mlp"),
            (10, 600, 0.4, "sgd", 0.1, 40, "mlp"), (10, 600, 0.0, "adam", 0.01, 30, "mlp"),
            (20, 900, 0.4, "adam", 0.02, 30, "deep"), (6, 600, 0.6, "adam", 0.005, 15, "mlp"),
        ]),
        *made(blobs, 16, [
            (3, 150, 0.4, "adam", 0.02, 40, "mlp"), (10, 600, 0.6, "adam", 0.02, 40, "mlp"),
            (50, 1200, 0.4, "adam", 0.02, 30, "mlp"), (100, 2000, 0.2, "adam", 0.02, 20, "mlp"),
            (20, 900, 0.0, "sgd", 0.1, 20, "mlp"), (10, 600, 0.4, "sgd", 0.05, 30, "linear"),
        ]),
        *made(teacher, 12, [
            (3, 600, 0.2, "adam", 0.01, 30, "mlp"), (10, 900, 0.4, "adam", 0.02, 30, "mlp"),
            (5, 600, 0.4, "sgd", 0.1, 40, "deep"), (10, 900, 0.0, "sgd", 0.03, 5, "mlp"),
        ]),
        *made(quantiles, 5, [
            (2, 600, 0.3, "sgd", 0.3, 40, "mlp"), (4, 600, 0.4, "adam", 0.02, 40, "mlp"),
            (6, 900, 0.2, "adam", 0.01, 40, "deep"), (5, 600, 0.0, "adam", 0.02, 30, "mlp"),
        ]),
        *made(images, 64, [
            (10, 600, 0.4, "adam", 0.02, 40, "mlp"), (10, 600, 0.6, "adam", 0.005, 30, "mlp"),
            (20, 900, 0.4, "sgd", 0.1, 40, "mlp"), (10, 600, 0.4, "adam", 0.01, 15, "cnn"),
            (30, 900, 0.0, "adam", 0.01, 20, "mlp"), (10, 200, 0.2, "adam", 0.02, 40, "linear"),
        ]),
        *iris,
    ]  # fmt: skip


def unseen_tasks() -> list[Task]:
    """Tasks on real data sets that no search uses, for the table alone."""
    rows = [
        *(("digits", 10, noise, on_digits) for noise in (0.0, 0.4)),
        *(("digits", 10, 0.4, how) for how in (replace(cnn, epochs=15), sgd)),
        ("wine", 3, 0.3, of_wine),
        *(("breast_cancer", 2, noise, of_cancer) for noise in (0.3, 0.0)),
    ]
    tasks = []
    for source, classes, noise, how in rows:
        sizes = (600, 400) if source == "digits" else (0.4, 0.2)
        data = partial(drawn, source=source, sizes=sizes, noise=noise, standardised=source != "digits")
        kind = "cnn" if isinstance(how.net, CNN) else "mlp"
        tasks.append(Task(f"{source}, {noise:.0%} wrong, {kind}, {how.optimizer}", "real", classes, noise, data, how))
    return tasks
