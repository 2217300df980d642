"""Wide residual networks."""

from __future__ import annotations

from collections.abc import Sequence

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

__all__ = ["WideResNet"]


class WideResNet(StagedNetwork):
    """WRN-depth-widen (Zagoruyko, Komodakis, arXiv 1605.07146).

    A pre-activation ResNet of `depth = 6 n + 4`, its three stages `widen` times as wide as 16, 32 and 64 channels, with
    dropout between the two convolutions of a block. On CIFAR-10, WRN-16-8 has 11.0 M parameters, WRN-28-5 9.1 M,
    WRN-28-10 36.5 M.

    Args:
        input_shape: (C, H, W) of one image, of at least 4x4.
        num_classes: number of outputs, at least 2.
        depth: 6 n + 4.
        widen: the k of the paper.
        dropout: share of a block's inner activations that is dropped in training; the paper's 0.3 goes with WRN-28-10.
        width: factor on every number of channels, the first convolution's 16 as well.
        aux: auxiliary classifiers, 0 to 2; see `StagedNetwork`.

    Raises:
        ValueError: a value out of range.
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
        channels = image_channels(input_shape, num_classes, 4)
        widen = number("widen", widen, above=0)
        blocks = blocks_of_depth(depth, 2, 4)
        stem = scaled(16, width)
        sizes = [scaled(size, width * widen) for size in (16, 32, 64)]
        stages: list[nn.Module] = []
        inputs = stem
        for index, outputs in enumerate(sizes):
            first = _Block(inputs, outputs, 1 if index == 0 else 2, dropout)
            rest = [_Block(outputs, outputs, 1, dropout) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*([conv3x3(channels, stem)] if index == 0 else ()), first, *rest))
            inputs = outputs
        super().__init__(stages, sizes, normed_head(sizes[-1], num_classes), num_classes, aux)
        initialize(self)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.layers = nn.Sequential(
            conv3x3(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else ()),
            conv3x3(outputs, outputs),
        )
        same = inputs == outputs and stride == 1
        self.project = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(x)
        # A projection sees the activations, an identity the input itself
        return self.layers(active) + (x if self.project is None else self.project(active))
