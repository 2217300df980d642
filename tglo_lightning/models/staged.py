"""What the networks have in common: checks of sizes, stages, a classifier, and classifiers after earlier stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tglo_lightning.arguments import integer, number, sizes


class Normalize(nn.Module):
    """`(x - mean) / std` for each channel, as the first layer of a network that takes pixels in [0, 1].

    So whatever works on inputs, augmentation or an attack, works on pixels, and a checkpoint holds all that a
    prediction needs. `mean` and `std`, which is above 0, have one number a channel; others are a `ValueError`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean and std must have one number a channel, got {list(mean)} and {list(std)}")
        if not all(value > 0 for value in std):
            raise ValueError(f"std must be above 0, got {list(std)}")
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]))
        self.register_buffer("std", torch.tensor([float(value) for value in std]))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised inputs, shape (B, C, ...) as they came."""
        shape = (-1, *[1] * (x.dim() - 2))
        return (x - self.mean.view(shape)) / self.std.view(shape)


class StagedNetwork(nn.Module):
    """Stages one after the other, then a classifier; auxiliary classifiers follow the last of the earlier stages.

    An auxiliary classifier is a global average pooling and a linear layer. It is there for training only.

    Args:
        stages: the layers that images pass through, stage by stage.
        channels: output channels of each stage.
        head: maps the last stage's output to logits.
        aux: number of auxiliary classifiers, below the number of stages.

    Raises:
        TypeError, ValueError: `aux` is no int or out of range.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[nn.Module]],
        channels: Sequence[int],
        head: nn.Module,
        num_classes: int,
        aux: int,
    ) -> None:
        super().__init__()
        self.aux = integer("aux", aux, 0, len(stages) - 1)
        self.stages = nn.ModuleList(nn.Sequential(*layers) for layers in stages)
        self.head = head
        self.aux_heads = nn.ModuleList(pooled(each, num_classes) for each in channels[len(stages) - 1 - aux : -1])
        initialize(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Logits (B, num_classes) of images (B, C, H, W).

        In training with `aux > 0` a pair: the logits, and a list of those of the auxiliary classifiers, in their order.
        """
        first = len(self.stages) - 1 - self.aux
        early: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if self.training and first <= index < len(self.stages) - 1:
                early.append(self.aux_heads[index - first](x))
        logits: Tensor = self.head(x)
        return (logits, early) if early else logits


def pooled(channels: int, num_classes: int, *before: nn.Module) -> nn.Sequential:
    """Global average pooling and a linear classifier, after the layers `before`."""
    return nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def initialize(network: nn.Module) -> None:
    """Draw the weights of convolutions from N(0, 2 / fan_out) (He et al., arXiv 1502.01852); set their biases to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def image_channels(input_shape: Sequence[int], num_classes: int, least: int = 1) -> int:
    """Channels of images (C, H, W), once shape and classes are known to fit; a `ValueError` if they do not."""
    integer("num_classes", num_classes, 2)
    if len(sizes("input_shape", input_shape)) != 3:
        raise ValueError(f"input_shape must be (C, H, W), got {tuple(input_shape)}")
    if min(input_shape[1:]) < least:
        raise ValueError(f"input_shape must have H and W of at least {least} here, got {tuple(input_shape)}")
    return input_shape[0]


def scaled(channels: float, width: float) -> int:
    """`channels * width`, rounded, at least 1; `width` is above 0."""
    return max(1, round(channels * number("width", width, above=0)))
