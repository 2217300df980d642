"""Trains many small networks in one pass: one stack of weights, each member with its own loss, rate, seed and split."""

from __future__ import annotations

import math
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.losses import class_priors, family
from tglo_lightning.search import Criterion, Evaluation

BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron with ReLU; ``sizes`` are inputs, hidden units, outputs. Two sizes make it linear."""

    sizes: tuple[int, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each parameter; a bias follows its matrix."""
        return [shape for i, o in zip(self.sizes, self.sizes[1:], strict=False) for shape in ((i, o), (1, o))]

    def __call__(self, params: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits (K, B, n) of inputs (K, B, d)."""
        for i in range(0, len(params), 2):
            x = torch.baddbmm(params[i + 1], x.relu() if i else x, params[i])
        return x


@dataclass(frozen=True)
class CNN:
    """Two 3x3 convolutions, each followed by 2x2 max pooling, and a linear layer; inputs are flattened images."""

    image: tuple[int, int, int]
    channels: tuple[int, int]
    classes: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each parameter; a bias follows its matrix."""
        (c, h, w), (a, b) = self.image, self.channels
        return [(9 * c, a), (1, a), (9 * a, b), (1, b), (b * (h // 4) * (w // 4), self.classes), (1, self.classes)]

    def __call__(self, params: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits (K, B, n) of inputs (K, B, c h w)."""
        (members, batch, _), (channels, h, w) = x.shape, self.image
        for i in (0, 2):
            patches = F.unfold(x.reshape(members * batch, channels, h, w), 3, padding=1)  # (K B, 9 c, h w)
            rows = patches.mT.reshape(members, batch * h * w, -1)
            maps = torch.baddbmm(params[i + 1], rows, params[i]).relu()
            channels = maps.shape[-1]
            x = F.max_pool2d(maps.reshape(members * batch, h, w, channels).permute(0, 3, 1, 2), 2)
            h, w = h // 2, w // 2
        return torch.baddbmm(params[5], x.reshape(members, batch, -1), params[4])


@dataclass(frozen=True)
class Training:
    """How a network is trained; ``metric`` is ``"accuracy"``, ``"recall"`` (macro) or ``"nll"`` (negated)."""

    net: MLP | CNN
    optimizer: str = "adam"
    lr: float = 0.01
    epochs: int = 30
    batch: int = 64
    momentum: float = 0.0
    weight_decay: float = 0.0
    metric: str = "accuracy"


@dataclass(frozen=True)
class Job:
    """Trainings that share a split and a seed, so that they start from the same weights and see the same batches.

    Attributes:
        split: row of the data.
        score: ``"last"`` or ``"best"``: the check that counts, by validation.
        checks: number of equally spaced checks for ``"best"``; 0 for one after each epoch.
        test: whether to measure on test data as well.
    """

    criteria: tuple[Criterion, ...]
    split: int
    seed: int
    score: str = "last"
    checks: int = 0
    test: bool = False


# Validation and test score of each member of a job
Scores = list[tuple[float, float]]


class Trainer:
    """Trains jobs on data of one shape.

    Args:
        training: how.
        data: of each split, inputs and labels for training, validation and test (clean).
        device: where.
        stack: most members of one pass.
    """

    def __init__(
        self, training: Training, data: Sequence[Sequence[np.ndarray]], device: str = "cpu", stack: int = 0
    ) -> None:
        self.training, self.device = training, torch.device(device)
        self.stack = stack or (1024 if self.device.type == "cuda" else 64)
        parts = [np.stack(part) for part in zip(*data, strict=True)]
        kinds = [torch.float32, torch.int64] * 3
        tensors = [torch.as_tensor(p, dtype=kind) for p, kind in zip(parts, kinds, strict=True)]
        self.priors = [class_priors(labels, training.net.shapes[-1][-1]) for labels in tensors[1]]
        self.x, self.y, *rest = [t.to(self.device) for t in tensors]
        self.held = {"val": rest[:2], "test": rest[2:]}
        self.betas = torch.tensor(BETAS, device=self.device)
        self.graphs = self.device.type == "cuda"

    def __call__(self, jobs: Sequence[Job]) -> list[Scores]:
        """Train all members of the jobs; return the scores of each."""
        members = [(j, m) for j, job in enumerate(jobs) for m in range(len(job.criteria))]
        members.sort(key=lambda jm: _key(jobs[jm[0]].criteria[jm[1]]))
        scores: list[Scores] = [[(math.nan, math.nan)] * len(job.criteria) for job in jobs]
        for start in range(0, len(members), self.stack):
            part = members[start : start + self.stack]
            for (j, m), values in zip(part, self._pass(jobs, part), strict=True):
                scores[j][m] = values
        return scores

    def _pass(self, jobs: Sequence[Job], members: Sequence[tuple[int, int]]) -> Iterator[tuple[float, float]]:
        how, own = self.training, [jobs[j] for j, _ in members]
        criteria = [jobs[j].criteria[m] for j, m in members]
        used = sorted({j for j, _ in members})
        row = {j: i for i, j in enumerate(used)}
        index = torch.tensor([row[j] for j, _ in members], device=self.device)
        flat = torch.stack([self._initial(jobs[j].seed) for j in used]).to(self.device)[index].requires_grad_()
        orders = torch.stack([self._orders(jobs[j].seed) for j in used]).to(self.device)
        split = torch.tensor([job.split for job in own], device=self.device)
        losses = self._losses(criteria, own)
        rate = how.lr * torch.tensor([[c.step] for c in criteria], device=self.device)
        state = [torch.zeros_like(flat), torch.zeros_like(flat), torch.ones(2, device=self.device)]

        def step(batch: Tensor) -> None:
            x, y = self.x[split[:, None], batch], self.y[split[:, None], batch]
            z = how.net(self._params(flat), x)
            pieces = [loss(z[part], y[part]).sum() for part, loss in losses]
            (gradient,) = torch.autograd.grad(torch.stack(pieces).sum(), flat)
            with torch.no_grad():
                self._update(flat, gradient, state, rate)

        run = self._captured(step, flat, state) if self.graphs else step
        best_of = torch.tensor([job.score == "best" for job in own], device=self.device)[:, None]
        every = torch.tensor([max(1, how.epochs // job.checks) if job.checks else 1 for job in own])
        best, at_best = torch.full((len(own), 1), -torch.inf, device=self.device), flat.detach().clone()
        for epoch in range(how.epochs):
            order = orders[:, epoch][index]
            for start in range(0, order.shape[1], how.batch):
                run(order[:, start : start + how.batch])
            last = epoch == how.epochs - 1
            checked = ((epoch + 1) % every == 0) | last
            if not last and not any(c and job.score == "best" for c, job in zip(checked.tolist(), own, strict=True)):
                continue
            with torch.no_grad():
                value = self._scores(flat, own, "val")[:, None]
                better = checked.to(self.device)[:, None] & (value > best)
                take = torch.where(best_of, better, torch.tensor(last, device=self.device))
                at_best, best = torch.where(take, flat.detach(), at_best), torch.where(take, value, best)
        tests = torch.full((len(own),), math.nan)
        if any(job.test for job in own):
            with torch.no_grad():
                tests = self._scores(at_best, own, "test")
        found = torch.where(best.isinf(), math.nan, best).flatten().tolist()
        return zip(found, tests.tolist(), strict=True)

    def _captured(self, step: Callable[[Tensor], None], flat: Tensor, state: list[Tensor]) -> Callable[[Tensor], None]:
        """The step replayed as a CUDA graph, one for each size of a batch; as it is if it cannot be captured."""
        graphs: dict[int, tuple[Any, Tensor]] = {}

        def run(batch: Tensor) -> None:
            size = batch.shape[1]
            if self.graphs and size not in graphs:
                kept, before = batch.clone(), [t.detach().clone() for t in (flat, *state)]
                try:
                    side = torch.cuda.Stream()
                    side.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(side):
                        step(kept)
                    torch.cuda.current_stream().wait_stream(side)
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                        step(kept)
                    graphs[size] = graph, kept
                except RuntimeError as error:
                    warnings.warn(f"Steps are not captured as CUDA graphs: {error}", stacklevel=2)
                    self.graphs = False
                with torch.no_grad():
                    for t, value in zip((flat, *state), before, strict=True):
                        t.copy_(value)
            if size in graphs:
                graphs[size][1].copy_(batch)
                graphs[size][0].replay()
            else:
                step(batch)

        return run

    def _update(self, flat: Tensor, g: Tensor, state: list[Tensor], rate: Tensor) -> None:
        m, v, powers = state
        if self.training.weight_decay:
            flat.mul_(1 - rate * self.training.weight_decay)  # decoupled, as in AdamW
        if self.training.optimizer == "sgd":
            flat.sub_(m.mul_(self.training.momentum).add_(g) * rate)
            return
        powers.mul_(self.betas)
        m.lerp_(g, 1 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        flat.sub_(m * (rate / (1 - powers[0])) / ((v / (1 - powers[1])).sqrt_().add_(EPS)))

    def _params(self, flat: Tensor) -> list[Tensor]:
        shapes = self.training.net.shapes
        pieces = flat.split([math.prod(s) for s in shapes], dim=1)
        return [p.view(-1, *s) for p, s in zip(pieces, shapes, strict=True)]

    def _initial(self, seed: int) -> Tensor:
        """Weights and biases drawn as `nn.Linear` and `nn.Conv2d` draw them."""
        generator, pieces, bound = torch.Generator().manual_seed(seed), [], 0.0
        for i, shape in enumerate(self.training.net.shapes):
            bound = bound if i % 2 else shape[0] ** -0.5
            pieces.append((torch.rand(math.prod(shape), generator=generator) * 2 - 1) * bound)
        return torch.cat(pieces)

    def _orders(self, seed: int) -> Tensor:
        generator, n = torch.Generator().manual_seed(seed + 2**32), self.x.shape[1]
        return torch.stack([torch.randperm(n, generator=generator) for _ in range(self.training.epochs)])

    def _losses(self, criteria: Sequence[Criterion], own: Sequence[Job]) -> list[tuple[slice, Callable[..., Tensor]]]:
        """Neighbours of one family, each with its loss as a function of stacked logits and labels."""
        groups, start = [], 0
        for key, group in groupby(range(len(criteria)), key=lambda i: _key(criteria[i])):
            rows, kind = list(group), family(key[0])
            options = [{"priors": self.priors[own[i].split]} if "priors" in _arguments(kind) else {} for i in rows]
            losses = [
                kind.of(criteria[i].losses[0].theta if criteria[i].losses else (), **option)
                for i, option in zip(rows, options, strict=True)
            ]
            stacked = {
                n: torch.stack([dict(l.named_buffers())[n] for l in losses]) for n, _ in losses[0].named_buffers()
            }
            buffers = {name: value.to(self.device) for name, value in stacked.items()}
            groups.append((slice(start, start + len(rows)), _mapped(losses[0], buffers)))
            start += len(rows)
        return groups

    def _scores(self, flat: Tensor, own: Sequence[Job], part: str) -> Tensor:
        """The metric of each member on held-out data; NaN if its logits are not finite."""
        values = torch.full((len(own),), math.nan, device=self.device)
        x, y = self.held[part]
        for split in sorted({job.split for job in own}):
            rows = torch.tensor([i for i, job in enumerate(own) if job.split == split], device=self.device)
            z = self.training.net(self._params(flat[rows]), x[split].expand(len(rows), -1, -1))
            target = y[split].expand(len(rows), -1)
            if self.training.metric == "nll":
                score = -F.cross_entropy(z.flatten(0, 1), target.flatten(), reduction="none").view_as(target).mean(1)
            else:
                hit = (z.argmax(-1) == target).float()
                if self.training.metric == "recall":
                    counts = torch.bincount(y[split], minlength=z.shape[-1])
                    weights = 1 / (counts[y[split]] * (counts > 0).sum())
                    score = (hit * weights).sum(1)
                else:
                    score = hit.mean(1)
            values[rows] = torch.where(z.isfinite().all(-1).all(-1), score, math.nan)
        return values


def lockstep(tasks: Sequence[Callable[[Callable[[Job], Scores]], None]], train: Callable[..., list[Scores]]) -> None:
    """Run tasks side by side, each a function of ``ask(job)``; what all of them ask for is trained in one pass."""
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask(job: Job) -> Scores:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        inbox.put((job, answer))
        scores = answer.get()
        if scores is None:
            raise RuntimeError("Another task failed.")
        return list(scores)

    def run(task: Callable[..., None]) -> None:
        try:
            task(ask)
        except BaseException as error:
            inbox.put((None, error))
        else:
            inbox.put((None, None))

    for task in tasks:
        threading.Thread(target=run, args=(task,), daemon=True).start()
    running, waiting, failed = len(tasks), [], None
    while running:
        job, answer = inbox.get()
        if job is None:
            running, failed = running - 1, failed or answer
        else:
            waiting.append((job, answer))
        if waiting and len(waiting) == running:
            results = [None] * len(waiting) if failed else train([job for job, _ in waiting])
            for (_, answer), result in zip(waiting, results, strict=True):
                answer.put(result)
            waiting = []
    if failed is not None:
        raise failed


@dataclass
class StackEvaluator:
    """The package's evaluator protocol: populations are trained by ``ask``, beside those of other searches."""

    ask: Callable[[Job], Scores]
    split: int
    score: str = "last"
    name = "stack"
    shares_passes = True

    def start(self, criteria: Sequence[Criterion], seed: int) -> StackPopulation:
        """Start one training for each criterion."""
        return StackPopulation(self, Job(tuple(criteria), self.split, seed, self.score))


class StackPopulation:
    """Trainings that run once their scores are asked for."""

    length = 1

    def __init__(self, evaluator: StackEvaluator, job: Job) -> None:
        self.evaluator, self.job = evaluator, job
        self.trained, self.members = 0, list(range(len(job.criteria)))

    def advance(self, n: int) -> None:
        """Train to the end, later."""
        self.trained = self.length

    def scores(self) -> Iterator[Evaluation]:
        """Yield the validation score of each member."""
        for value, _ in self.evaluator.ask(self.job):
            yield Evaluation(value) if math.isfinite(value) else Evaluation(math.nan, "diverged")

    def keep(self, members: Sequence[int]) -> None:
        """Do nothing: all are trained in one pass."""

    def close(self) -> None:
        """Do nothing."""


def _key(criterion: Criterion) -> tuple[str, int]:
    return criterion.shape[0] if criterion.losses else ("cross_entropy", 0)


def _arguments(kind: type) -> Sequence[str]:
    return kind.__init__.__kwdefaults__ or ()


def _mapped(loss: torch.nn.Module, buffers: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    call = torch.func.vmap(lambda own, z, y: torch.func.functional_call(loss, own, (z, y)))
    return lambda z, y: call(buffers, z, y)
