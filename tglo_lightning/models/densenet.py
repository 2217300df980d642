"""Densely connected networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tglo_lightning.models.staged import (
    StagedNetwork,
    blocks_of_depth,
    conv3x3,
    image_channels,
    initialize,
    normed_head,
    scaled,
)

__all__ = ["DenseNet"]


class DenseNet(StagedNetwork):
    """DenseNet-BC for CIFAR (Huang, Liu, van der Maaten, Weinberger, arXiv 1608.06993).

    Three stages of `n` layers, `depth = 6 n + 4`; each layer adds `growth` channels to all that came before, through a
    1x1 bottleneck of 4 `growth`; between stages a 1x1 convolution halves the channels, a pooling the image. 0.8 M
    parameters (769,162 on CIFAR-10) at depth 100 and growth 12.

    Args:
        input_shape: (C, H, W) of one image, of at least 4x4.
        num_classes: number of outputs, at least 2.
        depth: 6 n + 4.
        growth: the k of the paper.
        width: factor on `growth`.
        aux: auxiliary classifiers, 0 to 2; see `StagedNetwork`.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        depth: int = 100,
        growth: int = 12,
        width: float = 1.0,
        aux: int = 0,
    ) -> None:
        channels = image_channels(input_shape, num_classes, 4)
        layers = blocks_of_depth(depth, 2, 4)
        growth = scaled(growth, width)
        stages: list[nn.Module] = []
        sizes: list[int] = []
        inputs = 2 * growth
        for index in range(3):
            parts: list[nn.Module] = [conv3x3(channels, inputs)] if index == 0 else []
            parts += [_Layer(inputs + i * growth, growth) for i in range(layers)]
            outputs = inputs + layers * growth
            if index < 2:
                parts.append(_transition(outputs))
                outputs //= 2
            stages.append(nn.Sequential(*parts))
            sizes.append(outputs)
            inputs = outputs
        super().__init__(stages, sizes, normed_head(sizes[-1], num_classes), num_classes, aux)
        initialize(self)


class _Layer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            conv3x3(4 * growth, growth),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


def _transition(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, inputs // 2, 1, bias=False), nn.AvgPool2d(2)
    )
