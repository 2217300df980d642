"""Which of the search's constraints predicts whether a loss can be trained?

Random losses ``theta ~ N(0, 1.2^2)`` train small networks to the end, by Adam, which does not mind the scale of a
loss. A loss counts as trainable if its test accuracy gets at least a quarter of the way from chance to what
cross-entropy reaches by the same training. For each constraint of ``tglo_lightning.theory.trainability``: precision
(share of the kept losses that train) and recall (share of the losses that train that are kept).

The second table looks at where ``stable`` errs. With ``S > 0`` a drift of the output that all samples share grows, at
the rate ``lambda_drift S / n^2``, while the classes separate at a rate of the order of ``lambda_class B / n``. The
lambdas are sizes of the last layer's input at initialisation: ``1 + |mean over the samples|^2`` (the 1 is the bias),
and the mean squared distance of the class means from that mean. A race: ``stable`` should err by rejecting losses with
a small ``S / (n B)``, the more of them the smaller ``drift = lambda_drift / lambda_class`` is. Among the losses with
``B > 0``, ``best`` is the threshold on ``S / (n B)`` with the fewest errors (``stable`` is the threshold 0), and
``greatest`` the largest ``S / (n B)`` of a loss that trained.

    python benchmarks/trainability.py --data ../shared/data --output trainability.json

``--data`` holds MNIST and CIFAR-10 in the parquet layout of the public hub (folders ``mnist`` and ``cifar10_subset``,
read with pyarrow and Pillow); without them those tasks are left out. One thread.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from tglo_lightning.losses import CrossEntropyLoss, TaylorGLOLoss
from tglo_lightning.theory import trainability

SIGMA = 1.2
# Of `Trainability`, and of spaces
CONSTRAINTS = ("published", "trainable", "stable")
Split = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A network on a data set; ``net`` ends in the layer that gives the logits."""

    name: str
    net: Callable[[], nn.Sequential]
    data: Callable[[Path], Split]
    thetas: int
    steps: int
    batch: int = 64
    lr: float = 3e-3
    chunk: int = 1  # candidates trained as one stacked network


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(channels: tuple[int, ...], features: int, batch_norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)]
        layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10))


def lenet() -> nn.Sequential:
    pool = partial(nn.MaxPool2d, 2)
    convolutions = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), pool(), nn.Conv2d(6, 16, 5), nn.ReLU(), pool()]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*convolutions, nn.Flatten(), *head)


def table(load: Callable, standardised: bool, _: Path, shift: float = 0.0) -> Split:
    features, labels = load(return_X_y=True)
    split = train_test_split(features, labels, test_size=0.4, random_state=0, stratify=labels)
    x, x_test, y, y_test = (torch.as_tensor(np.asarray(part)) for part in split)
    if standardised:
        mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    else:
        mean, std = torch.zeros(()), x.max()
    x, x_test = ((part - mean) / std + shift for part in (x, x_test))
    return x.float(), y.long(), x_test.float(), y_test.long()


def digit_images(_: Path) -> Split:
    x, y, x_test, y_test = table(load_digits, False, _)
    return x.reshape(-1, 1, 8, 8), y, x_test.reshape(-1, 1, 8, 8), y_test


def parquet(folder: str, image: str, train: int, test: int, root: Path) -> Split:
    """The first ``train`` and ``test`` images, pixels in [-1, 1]."""
    import pyarrow.parquet as pq
    from PIL import Image

    parts: list[Tensor] = []
    for name, count in (("train", train), ("test", test)):
        file = next((root / folder).rglob(f"{name}-*.parquet"))
        rows = pq.read_table(file)
        chosen = np.random.default_rng(0).permutation(rows.num_rows)[:count]
        encoded = rows.column(image).take(chosen).to_pylist()
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(item["bytes"]))) for item in encoded])
        x = torch.from_numpy(pixels).float().div(127.5).sub(1)
        parts += [x.permute(0, 3, 1, 2).contiguous() if x.dim() == 4 else x.unsqueeze(1)]
        parts += [torch.tensor(rows.column("label").take(chosen).to_pylist())]
    return parts[0], parts[1], parts[2], parts[3]


MNIST = partial(parquet, "mnist", "image", 20_000, 2_000)
CIFAR = partial(parquet, "cifar10_subset", "img", 10_000, 2_000)
TASKS = (
    Task("digits, MLP", partial(mlp, (64, 64, 10)), partial(table, load_digits, False), 384, 400, chunk=128),
    Task(
        "digits, MLP, standardised", partial(mlp, (64, 64, 10)), partial(table, load_digits, True), 384, 400, chunk=128
    ),
    Task(  # the same inputs with a mean again: only the drift differs
        "digits, MLP, standardised, plus 1",
        partial(mlp, (64, 64, 10)),
        partial(table, load_digits, True, shift=1.0),
        384,
        400,
        chunk=128,
    ),
    Task("digits, CNN", partial(cnn, (1, 8, 16), 64), digit_images, 128, 300, chunk=4),
    Task("digits, CNN, BatchNorm", partial(cnn, (1, 8, 16), 64, True), digit_images, 128, 300, chunk=4),
    Task(
        "wine (n = 3), MLP, standardised",
        partial(mlp, (13, 64, 3)),
        partial(table, load_wine, True),
        384,
        300,
        chunk=128,
    ),
    Task(
        "breast cancer (n = 2), MLP, standardised",
        partial(mlp, (30, 64, 2)),
        partial(table, load_breast_cancer, True),
        384,
        300,
        chunk=128,
    ),
    Task("MNIST, LeNet", lenet, MNIST, 128, 250, lr=2e-3),
    Task("CIFAR-10 subset, CNN, BatchNorm", partial(cnn, (3, 8, 16, 32), 512, True), CIFAR, 64, 200, lr=2e-3),
)


class Candidate(nn.Module):
    """A network and its loss in one module, so that both can be stacked."""

    def __init__(self, net: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The loss, or the logits where there are no labels."""
        logits = self.net(x)
        return logits if y is None else self.loss(logits, y)


def train(task: Task, split: Split, criteria: list[nn.Module], seed: int) -> list[float]:
    """Test accuracy of each criterion after training, all as one stacked network on the same batches."""
    x, y, x_test, y_test = split
    candidates = []
    for i, criterion in enumerate(criteria):
        torch.manual_seed(seed + i)
        candidates.append(Candidate(task.net(), criterion))
    parameters, buffers = stack_module_state(candidates)
    skeleton = candidates[0]

    def run(x: Tensor, y: Tensor | None) -> Tensor:
        return torch.vmap(lambda *state: functional_call(skeleton, state, (x, y)))(parameters, buffers)

    batches = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(list(parameters.values()), lr=task.lr)
    for _ in range(task.steps):
        chosen = torch.randint(len(y), (task.batch,), generator=batches)
        optimizer.zero_grad()
        run(x[chosen], y[chosen]).sum().backward()
        optimizer.step()
    skeleton.eval()
    with torch.no_grad():
        parts = zip(x_test.split(500), y_test.split(500), strict=True)
        hits = torch.cat([run(xs, None).argmax(-1) == ys for xs, ys in parts], dim=1)
    return hits.double().mean(dim=1).tolist()


def drift_ratio(task: Task, split: Split) -> float:
    """``lambda_drift / lambda_class`` of the last layer's input, mean over five initialisations."""
    x, y = split[0][:1000], split[1][:1000]
    ratios = []
    for seed in range(5):
        torch.manual_seed(seed)
        with torch.no_grad():
            features = task.net()[:-1](x)
        mean = features.mean(0)
        classes = torch.stack([features[y == k].mean(0) for k in y.unique()])
        ratios.append(float((1 + mean.square().sum()) / (classes - mean).square().sum(1).mean()))
    return float(np.mean(ratios))


def measure(task: Task, root: Path, thetas: int | None, seed: int) -> dict:
    started = time.perf_counter()
    split = task.data(root)
    n = int(split[1].max()) + 1
    count = thetas or task.thetas
    theta = torch.from_numpy(np.random.default_rng(seed).normal(0, SIGMA, (count, 8)))
    chance = float(split[3].bincount(minlength=n).max()) / len(split[3])
    reference = train(task, split, [CrossEntropyLoss()], seed)[0]
    bar = chance + 0.25 * (reference - chance)
    accuracy: list[float] = []
    for start in range(0, count, task.chunk):
        losses: list[nn.Module] = [TaylorGLOLoss(row.float()) for row in theta[start : start + task.chunk]]
        accuracy += train(task, split, losses, seed + start)
    trains = np.array(accuracy) >= bar
    found = trainability(theta, n)
    result: dict = {"task": task.name, "n": n, "thetas": count, "steps": task.steps, "cross_entropy": reference}
    result |= {"bar": bar, "trainable": float(trains.mean()), "seconds": time.perf_counter() - started}
    for name in CONSTRAINTS:
        kept = np.asarray(getattr(found, name))
        result[name] = {
            "kept": float(kept.mean()),
            "precision": float(trains[kept].mean()),
            "recall": float(kept[trains].mean()),
        }
    result["stable_errors"] = errors(np.asarray(found.B), np.asarray(found.S) / (n * np.asarray(found.B)), trains)
    result["stable_errors"]["drift_ratio"] = drift_ratio(task, split)
    result["seconds"] = time.perf_counter() - started
    rows = zip(theta.tolist(), found.A.tolist(), found.B.tolist(), found.S.tolist(), accuracy, strict=True)
    result["losses"] = [dict(zip(("theta", "A", "B", "S", "accuracy"), row, strict=True)) for row in rows]
    return result


def errors(b: np.ndarray, slope: np.ndarray, trains: np.ndarray) -> dict:
    """Where ``stable`` errs, among losses with ``B > 0``."""
    trainable = b > 0
    slope, trains = slope[trainable], trains[trainable]
    rejected, kept = slope > 0, slope <= 0
    order = np.concatenate([[-np.inf], np.sort(slope)])
    wrong = [int((trains & (slope > t)).sum() + (~trains & (slope <= t)).sum()) for t in order]
    best = int(np.argmin(wrong))
    return {
        "rejected_yet_trains": int((rejected & trains).sum()),
        "rejected": int(rejected.sum()),
        "kept_yet_fails": int((kept & ~trains).sum()),
        "kept": int(kept.sum()),
        "median_slope_rejected_yet_trains": median(slope[rejected & trains]),
        "median_slope_rejected_and_fails": median(slope[rejected & ~trains]),
        "greatest_slope_that_trains": float(slope[trains].max()) if trains.any() else None,
        "best_threshold": float(order[best]),
        "errors_at_best_threshold": wrong[best],
        "errors_of_stable": int((rejected & trains).sum() + (kept & ~trains).sum()),
    }


def median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def show(results: list[dict]) -> None:
    print(f"\n{'task':42} {'thetas':>6} {'train':>6}" + "".join(f" {name + ' P / R':>18}" for name in CONSTRAINTS))
    for r in results:
        cells = "".join(f"{r[name]['precision']:>11.2f} / {r[name]['recall']:.2f}" + " " * 2 for name in CONSTRAINTS)
        print(f"{r['task']:42} {r['thetas']:>6} {r['trainable']:>6.2f} {cells}")
    columns = f"{'drift':>6} {'S>0 yet trains':>15} {'S<=0 yet fails':>15} {'best':>7} {'errors':>12} {'greatest':>9}"
    print(f"\n{'where stable errs (B > 0)':42} {columns}")
    for r in results:
        e = r["stable_errors"]
        rejected, kept = f"{e['rejected_yet_trains']}/{e['rejected']}", f"{e['kept_yet_fails']}/{e['kept']}"
        fewer = f"{e['errors_of_stable']} -> {e['errors_at_best_threshold']}"
        greatest = e["greatest_slope_that_trains"]
        print(
            f"{r['task']:42} {e['drift_ratio']:>6.1f} {rejected:>15} {kept:>15} {e['best_threshold']:>7.3f} "
            f"{fewer:>12} " + ("-" if greatest is None else f"{greatest:.3f}").rjust(9)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="mnist/ and cifar10_subset/")
    parser.add_argument("--output", type=Path, default=Path("trainability.json"), help="JSON file to write")
    parser.add_argument("--tasks", default="", help="only tasks whose name holds this text")
    parser.add_argument("--thetas", type=int, help="losses per task, in place of each task's own number")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results = []
    for task in TASKS:
        if arguments.tasks.lower() not in task.name.lower():
            continue
        try:
            results.append(measure(task, arguments.data, arguments.thetas, arguments.seed))
        except StopIteration:
            print(f"{task.name}: no data under {arguments.data}, left out.")
            continue
        print(f"{task.name}: {results[-1]['seconds']:.0f} s", flush=True)
    show(results)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
    report = {"sigma": SIGMA, "seed": arguments.seed, "versions": versions, "tasks": results}
    arguments.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
