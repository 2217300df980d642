"""Residual and densely connected networks in three stages, as published for 32x32 images.

All take `input_shape`, (C, H, W) of one image of at least 4x4; `num_classes`, at least 2; `width`, a factor on every
number of channels; `aux`, 0 to 2 auxiliary classifiers, see `StagedNetwork`. A value out of range is a `ValueError`.
The second and the third stage halve height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tglo_lightning.arguments import integer, number
from tglo_lightning.models.staged import StagedNetwork, image_channels, pooled, scaled

Block = Callable[[int, int, int], nn.Module]
"""Builds a block from input channels, output channels and stride."""


class ResNet(StagedNetwork):
    """ResNet for CIFAR (He, Zhang, Ren, Sun, arXiv 1512.03385, section 4.2).

    Three stages of 16, 32 and 64 channels, `depth = 6 n + 2` with n blocks of two 3x3 convolutions in each; shortcuts
    without parameters (option A). 0.27 M parameters at depth 20, 0.46 M at 32, 0.85 M at 56.
    """

    activates_first: ClassVar[bool] = False

    def __init__(
        self, *, input_shape: Sequence[int], num_classes: int, depth: int = 20, width: float = 1.0, aux: int = 0
    ) -> None:
        channels = image_channels(input_shape, num_classes, 4)
        sizes = [scaled(size, width) for size in (16, 32, 64)]
        stem: list[nn.Module] = [conv3x3(channels, sizes[0])]
        if not self.activates_first:
            stem += _normed(sizes[0])
        block, head = (_preactivated, _normed_head) if self.activates_first else (_basic, pooled)
        stages = _stages(block, stem, _repeated(sizes[0], sizes, _blocks(depth, 2)))
        super().__init__(stages, sizes, head(sizes[-1], num_classes), num_classes, aux)


class PreResNet(ResNet):
    """Pre-activation ResNet for CIFAR (He, Zhang, Ren, Sun, arXiv 1603.05027): normalise, ReLU, convolve.

    As `ResNet` otherwise: the same depths, channels and shortcuts, and nearly the same number of parameters.
    """

    activates_first = True


class WideResNet(StagedNetwork):
    """WRN-depth-widen (Zagoruyko, Komodakis, arXiv 1605.07146).

    A pre-activation ResNet of `depth = 6 n + 4`, its three stages `widen` times as wide as 16, 32 and 64 channels, with
    `dropout` between the two convolutions of a block; the paper's 0.3 goes with WRN-28-10. On CIFAR-10, WRN-16-8 has
    11.0 M parameters, WRN-28-5 9.1 M, WRN-28-10 36.5 M.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        depth: int = 28,
        widen: float = 10,
        dropout: float = 0.0,
        width: float = 1.0,
        aux: int = 0,
    ) -> None:
        channels, stem = image_channels(input_shape, num_classes, 4), scaled(16, width)
        sizes = [scaled(size, width * number("widen", widen, above=0)) for size in (16, 32, 64)]
        steps = _repeated(stem, sizes, _blocks(depth, 4))
        stages = _stages(partial(_wide, dropout), [conv3x3(channels, stem)], steps)
        super().__init__(stages, sizes, _normed_head(sizes[-1], num_classes), num_classes, aux)


class PyramidNet(StagedNetwork):
    """Additive PyramidNet of basic blocks (Han, Kim, Kim, arXiv 1610.02915).

    Channels grow by `alpha / N` with each of N blocks, from 16 to 16 + alpha; `depth = 6 n + 2` with n blocks in each
    of three stages. A block is normalise, convolve, normalise, ReLU, convolve, normalise; shortcuts have no parameters.
    1.7 M parameters at depth 110 and alpha 48.
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
        channels, alpha = image_channels(input_shape, num_classes, 4), number("alpha", alpha, least=0)
        blocks = _blocks(depth, 2)
        sizes = [scaled(16 + alpha * step / (3 * blocks), width) for step in range(3 * blocks + 1)]
        stages = _stages(_pyramidal, [conv3x3(channels, sizes[0]), nn.BatchNorm2d(sizes[0])], sizes)
        super().__init__(stages, sizes[blocks::blocks], _normed_head(sizes[-1], num_classes), num_classes, aux)


class DenseNet(StagedNetwork):
    """DenseNet-BC for CIFAR (Huang, Liu, van der Maaten, Weinberger, arXiv 1608.06993).

    Three stages of `n` layers, `depth = 6 n + 4`; each layer adds `growth` channels, times `width`, to all that came
    before, through a 1x1 bottleneck of four times as many; between stages a 1x1 convolution halves the channels, a
    pooling the image. 0.8 M parameters (769,162 on CIFAR-10) at depth 100 and growth 12.
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
        channels, layers, growth = image_channels(input_shape, num_classes, 4), _blocks(depth, 4), scaled(growth, width)
        size, sizes = 2 * growth, []
        stages: list[list[nn.Module]] = [[conv3x3(channels, size)], [], []]
        for index, stage in enumerate(stages):
            for _ in range(layers):
                inner = nn.Conv2d(size, 4 * growth, 1, bias=False)
                stage.append(_Dense(*_normed(size), inner, *_normed(4 * growth), conv3x3(4 * growth, growth)))
                size += growth
            if index < 2:
                stage += [*_normed(size), nn.Conv2d(size, size // 2, 1, bias=False), nn.AvgPool2d(2)]
                size //= 2
            sizes.append(size)
        super().__init__(stages, sizes, _normed_head(size, num_classes), num_classes, aux)


class _Residual(nn.Module):
    """`layers(x) + shortcut(x)`."""

    def __init__(self, shortcut: nn.Module, *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.shortcut = nn.Sequential(*layers), shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


class _Dense(nn.Sequential):
    """`x`, and the channels that the layers make of it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, super().forward(x)], dim=1)


class _Padded(nn.Module):
    """Every `stride`-th pixel, or the mean of so many, and `added` channels of zeros."""

    def __init__(self, stride: int, added: int, average: bool = False) -> None:
        super().__init__()
        self.stride, self.added, self.average = stride, added, average

    def forward(self, x: Tensor) -> Tensor:
        s = self.stride
        kept = F.avg_pool2d(x, s, ceil_mode=True) if self.average and s > 1 else x[:, :, ::s, ::s]
        return F.pad(kept, (0, 0, 0, 0, 0, self.added))


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps height and width, or divides them by `stride`."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _normed(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _normed_head(channels: int, num_classes: int) -> nn.Sequential:
    """What pre-activation networks end in."""
    return pooled(channels, num_classes, *_normed(channels))


def _convolved(inputs: int, outputs: int, stride: int, *between: nn.Module) -> list[nn.Module]:
    """Two 3x3 convolutions; between them normalisation, ReLU, and the layers `between`."""
    return [conv3x3(inputs, outputs, stride), *_normed(outputs), *between, conv3x3(outputs, outputs)]


def _basic(inputs: int, outputs: int, stride: int) -> nn.Module:
    layers = *_convolved(inputs, outputs, stride), nn.BatchNorm2d(outputs)
    return nn.Sequential(_Residual(_Padded(stride, outputs - inputs), *layers), nn.ReLU())


def _preactivated(inputs: int, outputs: int, stride: int) -> nn.Module:
    return _Residual(_Padded(stride, outputs - inputs), *_normed(inputs), *_convolved(inputs, outputs, stride))


def _pyramidal(inputs: int, outputs: int, stride: int) -> nn.Module:
    layers = nn.BatchNorm2d(inputs), *_convolved(inputs, outputs, stride), nn.BatchNorm2d(outputs)
    return _Residual(_Padded(stride, outputs - inputs, average=True), *layers)


def _wide(dropout: float, inputs: int, outputs: int, stride: int) -> nn.Module:
    layers = _convolved(inputs, outputs, stride, *([nn.Dropout(dropout)] if dropout else []))
    if inputs == outputs and stride == 1:
        return _Residual(nn.Identity(), *_normed(inputs), *layers)
    # A projection sees the activations, an identity the input itself
    project = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
    return nn.Sequential(*_normed(inputs), _Residual(project, *layers))


def _blocks(depth: int, rest: int) -> int:
    """Blocks in each of three stages, where `depth = 6 * blocks + rest`."""
    blocks, left = divmod(integer("depth", depth) - rest, 6)
    if blocks < 1 or left:
        raise ValueError(f"depth must be 6 n + {rest} with n of at least 1, got {depth}")
    return blocks


def _repeated(stem: int, sizes: Sequence[int], blocks: int) -> list[int]:
    """Channels before and after each block, the same within a stage."""
    return [stem, *(size for size in sizes for _ in range(blocks))]


def _stages(block: Block, stem: list[nn.Module], steps: Sequence[int]) -> list[list[nn.Module]]:
    """Three stages of blocks; `steps` are the channels before and after each block."""
    blocks = len(steps) // 3
    strides = [2 if i in (blocks, 2 * blocks) else 1 for i in range(3 * blocks)]
    layers = [block(*shape) for shape in zip(steps, steps[1:], strides, strict=False)]
    return [[*stem, *layers[:blocks]], layers[blocks : 2 * blocks], layers[2 * blocks :]]
