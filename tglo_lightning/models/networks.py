"""Small networks for the reference tasks."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from tglo_lightning.arguments import integer, sizes


class MLP(nn.Module):
    """Fully connected network with ReLU: images (B, C, H, W) to logits (B, num_classes).

    Args:
        input_shape: shape of one sample, any number of dimensions; it is flattened.
        num_classes: number of outputs, at least 2.
        hidden: units of each hidden layer; empty for a linear classifier.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        num_classes = integer("num_classes", num_classes, 2)
        units = [math.prod(sizes("input_shape", input_shape)), *sizes("hidden", hidden)]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(units):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(units[-1], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of a batch (B, ...)."""
        return self.layers(x)


class SmallCNN(nn.Module):
    """Blocks of 3x3 convolution, ReLU and 2x2 max-pooling, then a linear layer: (B, C, H, W) to (B, num_classes).

    Args:
        input_shape: (C, H, W) of one image.
        num_classes: number of outputs, at least 2.
        channels: output channels of each block; every block halves H and W.

    Raises:
        ValueError: a size out of range, or images too small for that many blocks.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, channels: Sequence[int] = (16, 32)) -> None:
        super().__init__()
        num_classes, channels = integer("num_classes", num_classes, 2), sizes("channels", channels)
        if len(sizes("input_shape", input_shape)) != 3:
            raise ValueError(f"input_shape must be (C, H, W), got {tuple(input_shape)}")
        inputs, height, width = input_shape
        blocks: list[nn.Module] = []
        for outputs in channels:
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            inputs, height, width = outputs, height // 2, width // 2
        if min(height, width) < 1:
            raise ValueError(f"channels has {len(channels)} blocks, too many for images of {tuple(input_shape)}")
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(inputs * height * width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of a batch of images (B, C, H, W)."""
        return self.layers(x)
