"""Residual networks for 32x32 images, in both orders of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tglo_lightning.models.staged import (
    StagedNetwork,
    blocks_of_depth,
    conv3x3,
    image_channels,
    initialize,
    normed_head,
    pooled,
    scaled,
)

__all__ = ["PreResNet", "ResNet"]


class ResNet(StagedNetwork):
    """ResNet for CIFAR (He, Zhang, Ren, Sun, arXiv 1512.03385, section 4.2).

    Three stages of 16, 32 and 64 channels, `depth = 6 n + 2` with n blocks of two 3x3 convolutions in each; shortcuts
    without parameters (option A). 0.27 M parameters at depth 20, 0.46 M at 32, 0.85 M at 56.

    Args:
        input_shape: (C, H, W) of one image, of at least 4x4.
        num_classes: number of outputs, at least 2.
        depth: 6 n + 2.
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
        depth: int = 20,
        width: float = 1.0,
        aux: int = 0,
    ) -> None:
        channels = image_channels(input_shape, num_classes, 4)
        sizes = [scaled(size, width) for size in (16, 32, 64)]
        stem = (conv3x3(channels, sizes[0]), nn.BatchNorm2d(sizes[0]), nn.ReLU())
        stages = _stages(_Block, stem, sizes, blocks_of_depth(depth, 2, 2))
        super().__init__(stages, sizes, pooled(sizes[-1], num_classes), num_classes, aux)
        initialize(self)


class PreResNet(StagedNetwork):
    """Pre-activation ResNet for CIFAR (He, Zhang, Ren, Sun, arXiv 1603.05027): normalise, ReLU, convolve.

    As `ResNet` otherwise: the same depths, channels and shortcuts, and nearly the same number of parameters.

    Args:
        input_shape: (C, H, W) of one image, of at least 4x4.
        num_classes: number of outputs, at least 2.
        depth: 6 n + 2.
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
        depth: int = 20,
        width: float = 1.0,
        aux: int = 0,
    ) -> None:
        channels = image_channels(input_shape, num_classes, 4)
        sizes = [scaled(size, width) for size in (16, 32, 64)]
        stages = _stages(_PreBlock, (conv3x3(channels, sizes[0]),), sizes, blocks_of_depth(depth, 2, 2))
        super().__init__(stages, sizes, normed_head(sizes[-1], num_classes), num_classes, aux)
        initialize(self)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.layers = nn.Sequential(
            conv3x3(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            conv3x3(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + _shortcut(x, self.stride, self.added))


class _PreBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            conv3x3(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            conv3x3(outputs, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + _shortcut(x, self.stride, self.added)


def _shortcut(x: Tensor, stride: int, added: int) -> Tensor:
    """Every `stride`-th pixel, and `added` channels of zeros."""
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, added))


def _stages(
    block: type[_Block] | type[_PreBlock], stem: Sequence[nn.Module], sizes: Sequence[int], blocks: int
) -> list[nn.Module]:
    """The stem, and stages of `blocks` blocks; each but the first halves height and width."""
    stages: list[nn.Module] = []
    inputs = sizes[0]
    for index, outputs in enumerate(sizes):
        first = block(inputs, outputs, 1 if index == 0 else 2)
        rest = [block(outputs, outputs, 1) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(*(stem if index == 0 else ()), first, *rest))
        inputs = outputs
    return stages
