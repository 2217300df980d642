"""How flat is the minimum that a network was trained to: accuracy and loss on the way out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tglo_lightning.arguments import integer, number
from tglo_lightning.module.preserving import preserved_module
from tglo_lightning.untrusted import load_arrays, save_arrays


@dataclass
class Landscape:
    """Accuracy and cross-entropy around a network.

    Cross-entropy, whatever loss the network was trained with: the values of different losses cannot be compared.

    Attributes:
        steps: positions along a direction, float64 of shape ``(P,)``; 0 is the network itself.
        accuracy, cross_entropy: along each of ``D`` directions, float64 of shape ``(D, P)``; the latter in nats.
        surface_steps: positions along both axes of the plane, of shape ``(Q,)``; empty without a surface.
        surface_accuracy, surface_cross_entropy: over the plane of the first two directions, of shape ``(Q, Q)``; the
            first moves the rows.
    """

    steps: Tensor
    accuracy: Tensor
    cross_entropy: Tensor
    surface_steps: Tensor
    surface_accuracy: Tensor
    surface_cross_entropy: Tensor
    samples: int
    seed: int

    def width(self, share: float = 0.9) -> tuple[float, float]:
        """How far one can go: the largest step at which accuracy is still ``share`` of that at 0, on either side.

        Linear between the steps, at most the last of them. Mean over directions and sides, and standard deviation.
        """
        middle = len(self.steps) // 2
        steps, floor = self.steps[middle:].tolist(), share * float(self.accuracy[0, middle])
        widths = []
        for row in torch.cat([self.accuracy[:, middle:], self.accuracy[:, : middle + 1].flip(1)]).tolist():
            i = next((i for i, value in enumerate(row) if value < floor), 0)
            part = (row[i - 1] - floor) / (row[i - 1] - row[i]) if i else 0.0
            widths.append(steps[i - 1] + part * (steps[i] - steps[i - 1]) if i else steps[-1])
        found = torch.tensor(widths, dtype=torch.float64)
        return float(found.mean()), float(found.std())

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` file of one array an attribute; the folder is made if need be."""
        return save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Landscape:
        """Read a file that :meth:`save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            values: dict[str, Any] = {name: torch.from_numpy(array) for name, array in load_arrays(path).items()}
            return cls(**values | {name: int(values[name]) for name in ("samples", "seed")})
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is no landscape: {error}") from error


def measure_landscape(
    module: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    directions: int = 10,
    reach: float = 1.0,
    points: int = 21,
    surface: bool = False,
    surface_points: int = 15,
    seed: int = 0,
    batch_size: int = 1024,
) -> Landscape:
    """Accuracy and cross-entropy along filter-normalised random directions (arXiv 1712.09913).

    Each point is computed with other weights in place of the module's, which stay, and in evaluation mode.

    Args:
        module: its ``forward(x)`` returns logits ``(N, n)``.
        data: images ``(N, ...)`` as the module takes them, and class indices ``(N,)``.
        directions: number of random directions, at least 1 (2 for a surface).
        reach: largest step; a step of 1 moves every filter by its own length.
        points, surface_points: positions along each direction, and each axis of the plane; odd, at least 3.
        surface: measure the plane of the first two directions as well.
        seed: of the directions; the global generators are left alone.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, no images.
    """
    for name, count in (("points", points), ("surface_points", surface_points)):
        if integer(name, count, 3) % 2 == 0:
            raise ValueError(f"`{name}` must be odd, got {count}.")
    directions = integer("directions", directions, 2 if surface else 1)
    reach = number("reach", reach, above=0)
    batch_size = integer("batch_size", batch_size, 1)
    x, labels = data
    if not len(x) or len(x) != len(labels):
        raise ValueError(f"`data` must be images and as many labels, got {len(x)} and {len(labels)}.")
    device = next(module.parameters()).device
    batches = list(zip(x.to(device).split(batch_size), labels.to(device).split(batch_size), strict=True))
    generator = torch.Generator().manual_seed(seed)
    ways = [filter_normalized(module, generator) for _ in range(directions)]
    steps = reach * torch.linspace(-1, 1, points, dtype=torch.float64)
    plane = reach * torch.linspace(-1, 1, surface_points if surface else 0, dtype=torch.float64)
    with preserved_module(module):
        along = [[_at(module, batches, [(s, way)]) for s in steps.tolist()] for way in ways]
        over = [[_at(module, batches, [(s, ways[0]), (t, ways[1])]) for t in plane.tolist()] for s in plane.tolist()]
    accuracy, cross_entropy = torch.tensor(along, dtype=torch.float64).unbind(-1)
    flat, losses = torch.tensor(over, dtype=torch.float64).reshape(len(plane), len(plane), 2).unbind(-1)
    return Landscape(steps, accuracy, cross_entropy, plane, flat, losses, samples=len(x), seed=seed)


def filter_normalized(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction in the space of weights, each filter of the length of the module's own.

    A filter is what makes one output: a row of a linear layer, a kernel of a convolution. Biases and the scales of
    normalisation layers, which are vectors, stay as they are. ``generator`` is on the CPU.
    """
    direction = {}
    for name, weight in module.named_parameters():
        if weight.dim() < 2:
            continue
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        rows, filters = noise.flatten(1), weight.detach().flatten(1)
        scale = filters.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
        direction[name] = (rows * scale).view_as(weight)
    return direction


@torch.no_grad()
def _at(
    module: nn.Module, batches: list[tuple[Tensor, Tensor]], moves: Sequence[tuple[float, dict[str, Tensor]]]
) -> list[float]:
    """Accuracy and cross-entropy with the weights moved."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    for step, direction in moves:
        if step:
            weights |= {name: weights[name] + step * way for name, way in direction.items()}
    right, loss, count = 0, 0.0, 0
    for x, labels in batches:
        logits = torch.func.functional_call(module, weights, (x,))
        right += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits.double(), labels, reduction="sum"))
        count += len(x)
    return [right / count, loss / count]
