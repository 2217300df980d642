"""How flat is the minimum that a network was trained to: accuracy and loss on the way out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tglo_lightning.arguments import integer, number

__all__ = ["Landscape", "filter_normalized", "measure_landscape"]


@dataclass
class Landscape:
    """Accuracy and cross-entropy around a network.

    Cross-entropy, whatever loss the network was trained with: the values of different losses cannot be compared.

    Attributes:
        steps: positions along a direction, float64 of shape ``(P,)``; 0 is the network itself.
        accuracy: along each of ``D`` directions, float64 of shape ``(D, P)``.
        cross_entropy: the same, mean over images in nats.
        surface_steps: positions along both axes of the plane, of shape ``(Q,)``; empty without a surface.
        surface_accuracy: over the plane of the first two directions, of shape ``(Q, Q)``; the first moves the rows.
        surface_cross_entropy: the same.
        samples: number of images.
        seed: of the directions.
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
        middle = int((self.steps == 0).nonzero()[0])
        floor = share * float(self.accuracy[0, middle])
        widths = []
        for row in self.accuracy:
            for steps, values in (
                (self.steps[middle:], row[middle:]),
                (-self.steps[: middle + 1].flip(0), row[: middle + 1].flip(0)),
            ):
                below = (values < floor).nonzero()
                if not len(below):
                    widths.append(float(steps[-1]))
                    continue
                i = int(below[0])
                part = (values[i - 1] - floor) / (values[i - 1] - values[i])
                widths.append(float(steps[i - 1] + part * (steps[i] - steps[i - 1])))
        found = torch.tensor(widths, dtype=torch.float64)
        return float(found.mean()), float(found.std())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; a loss that is not finite becomes ``None``."""
        return {key: _plain(value) for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Landscape:
        """The landscape of a :meth:`to_dict`.

        Raises:
            ValueError: ``data`` is something else.
        """
        try:
            values: dict[str, Any] = {k: _tensor(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"This is no landscape: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write the landscape as JSON; the folder is made if need be."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), allow_nan=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Landscape:
        """Read a file that :meth:`save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


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

    The module's own weights are never changed: each point is computed with other weights in their place. It is
    measured in evaluation mode, BatchNorm with the statistics it has, and left in the mode it was in.

    Args:
        module: its ``forward(x)`` returns logits ``(N, n)``.
        data: images ``(N, ...)`` as the module takes them, and class indices ``(N,)``.
        directions: number of random directions, at least 1 (2 for a surface).
        reach: largest step; a step of 1 moves every filter by its own length.
        points: positions along each direction, odd and at least 3.
        surface: measure the plane of the first two directions as well.
        surface_points: positions along each axis of the plane, odd and at least 3.
        seed: of the directions; the global generators are left alone.
        batch_size: images at once.

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
    steps, plane = _positions(reach, points), _positions(reach, surface_points if surface else 0)
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        along = _tensor([[_at(module, batches, ((float(s), way),)) for s in steps] for way in ways])
        over = _tensor(
            [[_at(module, batches, ((float(s), ways[0]), (float(t), ways[1]))) for t in plane] for s in plane]
        ).reshape(len(plane), len(plane), 2)
    finally:
        for child, training in modes:
            child.training = training
    return Landscape(steps, along[..., 0], along[..., 1], plane, over[..., 0], over[..., 1], samples=len(x), seed=seed)


def filter_normalized(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction in the space of weights, each filter of the length of the module's own.

    A filter is what makes one output: a row of a linear layer, a kernel of a convolution. Biases and the scales of
    normalisation layers, which are vectors, stay as they are.

    Args:
        module: whose weights.
        generator: where the random numbers come from, on the CPU.
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


def _positions(reach: float, count: int) -> Tensor:
    half = count // 2
    return reach * torch.arange(-half, half + 1, dtype=torch.float64)[: max(count, 0)] / max(half, 1)


@torch.no_grad()
def _at(
    module: nn.Module, batches: list[tuple[Tensor, Tensor]], moves: tuple[tuple[float, dict[str, Tensor]], ...]
) -> list[float]:
    """Accuracy and cross-entropy with the weights moved."""
    weights = dict(_moved(module, moves))
    right, loss, count = 0, 0.0, 0
    for x, labels in batches:
        logits = torch.func.functional_call(module, weights, (x,))
        right += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits.double(), labels, reduction="sum"))
        count += len(x)
    return [right / count, loss / count]


def _moved(module: nn.Module, moves: tuple[tuple[float, dict[str, Tensor]], ...]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in module.named_parameters():
        moved = weight.detach()
        for step, direction in moves:
            if step and name in direction:
                moved = moved + step * direction[name]
        yield name, moved


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _tensor(values: Any) -> Tensor:
    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(entry) for entry in value]
        return float("nan") if value is None else value

    return torch.tensor(known(values), dtype=torch.float64)
