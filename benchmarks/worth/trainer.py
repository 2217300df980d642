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
from tglo_lightning.losses.class_priors import PriorLoss
from tglo_lightning.search import Criterion, Evaluation

BETAS, EPS = (0.9, 0.999), 1e-8
MOST_SCORED = 2**17  # samples times members that are scored at once, for their memory


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
        # One group of channels a member. Channels last, and ReLU after pooling, take half of the time on a CPU
        maps = x.reshape(members, batch, channels, h, w).transpose(0, 1).reshape(batch, -1, h, w)
        maps = maps.contiguous(memory_format=torch.channels_last)
        for i in (0, 2):
            kernels = params[i].mT.reshape(-1, params[i].shape[1] // 9, 3, 3)
            maps = F.conv2d(maps, kernels, params[i + 1].flatten(), padding=1, groups=members)
            maps = F.max_pool2d(maps, 2).relu()
        return torch.baddbmm(params[5], maps.reshape(batch, members, -1).transpose(0, 1), params[4])


@dataclass(frozen=True)
class Shifts:
    """Augmentation: an image is shifted by up to some pixels, black moves in, and every other one is mirrored.

    Drawn for every sample and epoch, the same for all members of a seed, as their batches are.

    Attributes:
        image: channels, height, width.
        pixels: the most that is shifted, up and down, left and right.
        flip: whether images are mirrored left to right.
    """

    image: tuple[int, int, int]
    pixels: int = 1
    flip: bool = False

    def maps(self) -> Tensor:
        """For each variant the pixel that moves to each place, (variants, c h w); black is the one after the last."""
        (c, h, w), far = self.image, self.pixels
        places = F.pad(torch.arange(c * h * w).view(c, h, w), (far,) * 4, value=c * h * w)
        moves = range(2 * far + 1)
        moved = [places[:, a : a + h, b : b + w] for a in moves for b in moves]
        return torch.stack(moved + [image.flip(2) for image in moved] * self.flip).flatten(1)


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
    augment: Shifts | None = None


@dataclass(frozen=True)
class Member:
    """One training. Members of one split and seed start from the same weights and see the same batches.

    Attributes:
        split: row of the data.
        score: ``"last"`` or ``"best"``: the check that counts, by validation.
        checks: number of equally spaced checks for ``"best"``; 0 for one after each epoch.
        test: whether to measure on test data as well.
    """

    criterion: Criterion
    split: int
    seed: int
    score: str = "last"
    checks: int = 0
    test: bool = False

    @property
    def family(self) -> tuple[str, int]:
        """Family and number of parameters of the loss."""
        return self.criterion.shape[0] if self.criterion.losses else ("cross_entropy", 0)


# Validation and test score of each member
Scores = list[tuple[float, float]]
Ask = Callable[[Sequence[Member]], Scores]


class Trainer:
    """Trains members on splits of one shape.

    Args:
        how: how they are trained.
        data: of each split, inputs and labels for training, validation and test (clean).
        device: where.
        stack: most members of one pass; 64, or 1024 on a GPU.
        graphs: whether steps on a GPU are replayed as CUDA graphs.
    """

    def __init__(
        self,
        how: Training,
        data: Sequence[Sequence[np.ndarray]],
        device: str = "cpu",
        stack: int = 0,
        graphs: bool = True,
    ) -> None:
        self.how, self.device = how, torch.device(device)
        self.stack = stack or (1024 if self.device.type == "cuda" else 64)
        self.graphs = graphs and self.device.type == "cuda"
        parts = [torch.as_tensor(np.stack(part)) for part in zip(*data, strict=True)]
        self.priors = [class_priors(labels, how.net.shapes[-1][-1]) for labels in parts[1]]
        self.x, xv, xt = (part.float().to(self.device) for part in parts[::2])
        self.y, yv, yt = (part.long().to(self.device) for part in parts[1::2])
        self.held = {"val": (xv, yv), "test": (xt, yt)}
        self.betas = torch.tensor(BETAS, device=self.device)
        self.maps = how.augment.maps().to(self.device) if how.augment else None

    def __call__(self, members: Sequence[Member]) -> Scores:
        """Train all members; return their scores."""
        order = sorted(range(len(members)), key=lambda i: members[i].family)
        scores: Scores = [(math.nan, math.nan)] * len(members)
        for start in range(0, len(order), self.stack):
            part = order[start : start + self.stack]
            for i, found in zip(part, self._pass([members[i] for i in part]), strict=True):
                scores[i] = found
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # other processes train beside this one
        return scores

    def _pass(self, members: Sequence[Member]) -> Iterator[tuple[float, float]]:
        how, device = self.how, self.device
        seeds = sorted({member.seed for member in members})
        index = torch.tensor([seeds.index(member.seed) for member in members], device=device)
        flat = torch.stack([self._initial(seed) for seed in seeds]).to(device)[index].requires_grad_()
        orders = torch.stack([self._orders(seed) for seed in seeds]).to(device)
        split = torch.tensor([[member.split] for member in members], device=device)
        rate = how.lr * torch.tensor([[member.criterion.step] for member in members], device=device)
        losses = self._losses(members)
        state = [torch.zeros_like(flat), torch.zeros_like(flat), torch.ones(2, device=device)]

        def step(batch: Tensor) -> None:
            x, y = self._batch(split, batch)
            z = how.net(self._params(flat), x)
            (gradient,) = torch.autograd.grad(
                torch.stack([loss(z[part], y[part]).sum() for part, loss in losses]).sum(), flat
            )
            with torch.no_grad():
                self._update(flat, gradient, state, rate)

        run = self._captured(step, [flat, *state]) if self.graphs else step
        best = torch.full((len(members), 1), -torch.inf, device=device)
        at_best = flat.detach().clone()
        for epoch in range(1, how.epochs + 1):
            order = orders[:, epoch - 1][index]
            for start in range(0, order.shape[1], how.batch):
                run(order[:, start : start + how.batch])
            due = [epoch == how.epochs or _is_check(member, epoch, how.epochs) for member in members]
            if any(due):
                with torch.no_grad():
                    value = self._scores(flat, members, "val")[:, None]
                    take = torch.tensor(due, device=device)[:, None] & ((value > best) | best.isinf())
                    at_best, best = torch.where(take, flat, at_best), torch.where(take, value, best)
        tests = torch.full((len(members),), math.nan)
        if any(member.test for member in members):
            with torch.no_grad():
                tests = self._scores(at_best, members, "test")
        return zip(best.flatten().tolist(), tests.tolist(), strict=True)

    def _captured(self, step: Callable[[Tensor], None], changed: list[Tensor]) -> Callable[[Tensor], None]:
        """The step replayed as a CUDA graph, one for each size of a batch; as it is if it cannot be captured."""
        graphs: dict[int, tuple[Any, Tensor]] = {}

        def capture(batch: Tensor) -> None:
            kept, before, side = batch.clone(), [t.detach().clone() for t in changed], torch.cuda.Stream()
            try:
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    step(kept)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    step(kept)
                graphs[batch.shape[1]] = graph, kept
            except RuntimeError as error:
                warnings.warn(f"Steps are not captured as CUDA graphs: {error}", stacklevel=2)
                self.graphs = False
            with torch.no_grad():
                for t, value in zip(changed, before, strict=True):
                    t.copy_(value)

        def run(batch: Tensor) -> None:
            if self.graphs and batch.shape[1] not in graphs:
                capture(batch)
            if batch.shape[1] not in graphs:
                return step(batch)
            graph, kept = graphs[batch.shape[1]]
            kept.copy_(batch)
            graph.replay()

        return run

    def _update(self, flat: Tensor, g: Tensor, state: list[Tensor], rate: Tensor) -> None:
        m, v, powers = state
        if self.how.weight_decay:
            flat.mul_(1 - rate * self.how.weight_decay)  # decoupled, as in AdamW
        if self.how.optimizer == "sgd":
            flat.sub_(m.mul_(self.how.momentum).add_(g) * rate)
            return
        powers.mul_(self.betas)
        m.lerp_(g, 1 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        flat.sub_(m * (rate / (1 - powers[0])) / ((v / (1 - powers[1])).sqrt_().add_(EPS)))

    def _batch(self, split: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels of samples ``batch % n``, in the variant ``batch // n`` of the augmentation."""
        n = self.x.shape[1]
        rows = batch % n
        x, y = self.x[split, rows], self.y[split, rows]
        if self.maps is not None:
            x = F.pad(x, (0, 1)).gather(2, self.maps[batch // n])
        return x, y

    def _params(self, flat: Tensor) -> list[Tensor]:
        shapes = self.how.net.shapes
        pieces = flat.split([math.prod(s) for s in shapes], dim=1)
        return [p.view(-1, *s) for p, s in zip(pieces, shapes, strict=True)]

    def _initial(self, seed: int) -> Tensor:
        """Weights and biases drawn as `nn.Linear` and `nn.Conv2d` draw them."""
        generator, pieces, bound = torch.Generator().manual_seed(seed), [], 0.0
        for i, shape in enumerate(self.how.net.shapes):
            bound = bound if i % 2 else shape[0] ** -0.5
            pieces.append((torch.rand(math.prod(shape), generator=generator) * 2 - 1) * bound)
        return torch.cat(pieces)

    def _orders(self, seed: int) -> Tensor:
        """The samples of each epoch in their order, (epochs, n); see `_batch`."""
        generator, n = torch.Generator().manual_seed(seed + 2**32), self.x.shape[1]
        orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(self.how.epochs)])
        if self.maps is None:
            return orders
        return orders + n * torch.randint(len(self.maps), orders.shape, generator=generator)

    def _losses(self, members: Sequence[Member]) -> list[tuple[slice, Callable[[Tensor, Tensor], Tensor]]]:
        """Neighbours of one family, each with its loss as a function of stacked logits and labels."""
        groups, start = [], 0
        for (name, _), group in groupby(members, key=lambda member: member.family):
            kind, rows = family(name), list(group)
            stacked: dict[str, list[Tensor]] = {}
            for member in rows:
                theta = member.criterion.losses[0].theta if member.criterion.losses else ()
                option = {"priors": self.priors[member.split]} if issubclass(kind, PriorLoss) else {}
                loss = kind.of(theta, **option)
                for name, buffer in loss.named_buffers():
                    stacked.setdefault(name, []).append(buffer)
            buffers = {name: torch.stack(values).to(self.device) for name, values in stacked.items()}
            groups.append((slice(start, start + len(rows)), _mapped(loss, buffers)))
            start += len(rows)
        return groups

    def _scores(self, flat: Tensor, members: Sequence[Member], part: str) -> Tensor:
        """The metric of each member on held-out data; NaN if its logits are not finite."""
        values = torch.full((len(members),), math.nan, device=self.device)
        for split in sorted({member.split for member in members}):
            x, y = (tensor[split] for tensor in self.held[part])
            rows = torch.tensor([i for i, m in enumerate(members) if m.split == split], device=self.device)
            for some in rows.split(max(1, MOST_SCORED // len(y))):
                z = self.how.net(self._params(flat[some]), x.expand(len(some), -1, -1))
                target = y.expand(len(some), -1)
                if self.how.metric == "nll":
                    score = -F.cross_entropy(z.mT, target, reduction="none").mean(1)
                else:
                    hit = (z.argmax(-1) == target).float()
                    counts = torch.bincount(y, minlength=z.shape[-1])
                    balanced = 1 / (counts[y] * (counts > 0).sum())
                    score = (hit * balanced).sum(1) if self.how.metric == "recall" else hit.mean(1)
                values[some] = torch.where(z.isfinite().flatten(1).all(1), score, math.nan)
        return values


def lockstep(tasks: Sequence[Callable[[Ask], None]], train: Ask) -> None:
    """Run tasks side by side, each a function of ``ask(members)``; what all of them ask for is trained in one pass."""
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask(members: Sequence[Member]) -> Scores:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        inbox.put((members, answer))
        scores = answer.get()
        if scores is None:
            raise RuntimeError("Another task failed.")
        return list(scores)

    def run(task: Callable[[Ask], None]) -> None:
        error = None
        try:
            task(ask)
        except BaseException as raised:
            error = raised
        inbox.put((None, error))

    for task in tasks:
        threading.Thread(target=run, args=(task,), daemon=True).start()
    running, waiting, failed = len(tasks), [], None
    while running:
        members, answer = inbox.get()
        if members is None:
            running, failed = running - 1, failed or answer
        else:
            waiting.append((members, answer))
        if waiting and len(waiting) == running:
            scores = None if failed else iter(train([member for members, _ in waiting for member in members]))
            for members, answer in waiting:
                answer.put(scores and [next(scores) for _ in members])
            waiting = []
    if failed is not None:
        raise failed


@dataclass
class StackEvaluator:
    """The package's evaluator protocol: populations are trained by ``ask``, beside those of other searches."""

    ask: Ask
    split: int
    score: str = "last"
    name = "stack"
    shares_passes = True

    def start(self, criteria: Sequence[Criterion], seed: int) -> StackPopulation:
        """Start one training for each criterion."""
        return StackPopulation(self.ask, [Member(c, self.split, seed, self.score) for c in criteria])


class StackPopulation:
    """Trainings that run as a whole once their scores are asked for."""

    length = 1

    def __init__(self, ask: Ask, started: Sequence[Member]) -> None:
        self.ask, self.started = ask, started
        self.trained, self.members = 0, list(range(len(started)))

    def advance(self, n: int) -> None:
        """Train to the end, later."""
        self.trained = self.length

    def scores(self) -> Iterator[Evaluation]:
        """Yield the validation score of each member."""
        for value, _ in self.ask(self.started):
            yield Evaluation(value) if math.isfinite(value) else Evaluation(math.nan, "diverged")

    def keep(self, members: Sequence[int]) -> None:
        """Do nothing: all are trained in one pass."""

    def close(self) -> None:
        """Do nothing."""


def _is_check(member: Member, epoch: int, epochs: int) -> bool:
    return member.score == "best" and epoch % max(1, epochs // (member.checks or epochs)) == 0


def _mapped(loss: torch.nn.Module, buffers: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    call = torch.func.vmap(lambda own, z, y: torch.func.functional_call(loss, own, (z, y)))
    return lambda z, y: call(buffers, z, y)
