"""Pyramidal residual networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tglo_lightning.arguments import number
from tglo_lightning.models.staged import (
    StagedNetwork,
    blocks_of_depth,
    conv3x3,
    image_channels,
    initialize,
    normed_head,
    scaled,
)

__all__ = ["PyramidNet"]


class PyramidNet(StagedNetwork):
    """Additive PyramidNet of basic blocks (Han, Kim, Kim, arXiv 1610.02915).

    Channels grow by `alpha / N` with each of N blocks, from 16 to 16 + alpha; `depth = 6 n + 2` with n blocks in each
    of three stages. A block is normalise, convolve, normalise, ReLU, convolve, normalise; shortcuts have no parameters.
    1.7 M parameters at depth 110 and alpha 48.

    Args:
        input_shape: (C, H, W) of one image, of at least 4x4.
        num_classes: number of outputs, at least 2.
        depth: 6 n + 2.
        alpha: channels that are added in all.
        width: factor on every number of channels.
        aux: auxiliary classifiers, 0 to 2; see `StagedNetwork`.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        depth: int = 110,
        alpha: float = 48,
        width: float = 1.0,
        aux: int = 0,
    ) -> None:
        channels = image_channels(input_shape, num_classes, 4)
        alpha = number("alpha", alpha, least=0)
        blocks = blocks_of_depth(depth, 2, 2)
        sizes = [scaled(16 + alpha * step / (3 * blocks), width) for step in range(3 * blocks + 1)]
        stages: list[nn.Module] = []
        for index in range(3):
            steps = range(index * blocks, (index + 1) * blocks)
            layers = [_Block(sizes[i], sizes[i + 1], 2 if index and i == steps[0] else 1) for i in steps]
            stem = [conv3x3(channels, sizes[0]), nn.BatchNorm2d(sizes[0])] if index == 0 else []
            stages.append(nn.Sequential(*stem, *layers))
        super().__init__(stages, sizes[blocks::blocks], normed_head(sizes[-1], num_classes), num_classes, aux)
        initialize(self)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            conv3x3(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            conv3x3(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.stride == 1 else F.avg_pool2d(x, 2, ceil_mode=True)
        return self.layers(x) + F.pad(kept, (0, 0, 0, 0, 0, self.added))
