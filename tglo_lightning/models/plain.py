"""Networks without shortcuts: small ones for the reference tasks, AlexNet and All-CNN.

All take `input_shape`, (C, H, W) of one image, and `num_classes`, at least 2; larger ones `width`, a factor on the size
of every hidden layer, and `aux`, a number of auxiliary classifiers, see `StagedNetwork`. A value out of range is a
`ValueError`.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from tglo_lightning.arguments import integer, sizes
from tglo_lightning.models.staged import StagedNetwork, image_channels, pooled, scaled

Layers = list[nn.Module]


class MLP(nn.Sequential):
    """Fully connected network with ReLU: samples (B, ...) to logits (B, num_classes).

    Args:
        input_shape: shape of one sample, any number of dimensions; it is flattened.
        num_classes: number of outputs, at least 2.
        hidden: units of each hidden layer; empty for a linear classifier.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (64,)) -> None:
        num_classes = integer("num_classes", num_classes, 2)
        units = [math.prod(sizes("input_shape", input_shape)), *sizes("hidden", hidden)]
        layers = [layer for shape in pairwise(units) for layer in (nn.Linear(*shape), nn.ReLU())]
        super().__init__(nn.Flatten(), *layers, nn.Linear(units[-1], num_classes))


class SmallCNN(nn.Sequential):
    """Blocks of 3x3 convolution, ReLU and 2x2 max-pooling, then a linear layer: (B, C, H, W) to (B, num_classes).

    Args:
        input_shape: (C, H, W) of one image, large enough for that many blocks.
        num_classes: number of outputs, at least 2.
        channels: output channels of each block; every block halves H and W.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, channels: Sequence[int] = (16, 32)) -> None:
        steps = [image_channels(input_shape, num_classes), *sizes("channels", channels)]
        height, width = (side // 2 ** len(channels) for side in input_shape[1:])
        if min(height, width) < 1:
            raise ValueError(f"channels has {len(channels)} blocks, too many for images of {tuple(input_shape)}")
        blocks = [layer for shape in pairwise(steps) for layer in _convolved(*shape, 3, padding=1)]
        super().__init__(*blocks, nn.Flatten(), nn.Linear(steps[-1] * height * width, num_classes))


class LeNet5(nn.Sequential):
    """LeNet-5 (LeCun, Bottou, Bengio, Haffner, 1998), as it is built today: 61,706 parameters on MNIST.

    Two 5x5 convolutions of 6 and 16 channels, each followed by 2x2 pooling, then fully connected layers of 120 and 84.
    ReLU and max-pooling stand where the original has tanh and trained average pooling, and the second convolution sees
    all 6 channels. Images are of at least 28x28 pixels; these are padded to 32x32.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, width: float = 1.0) -> None:
        channels = image_channels(input_shape, num_classes, 28)
        c1, c2, f1, f2 = (scaled(size, width) for size in (6, 16, 120, 84))
        padding = 2 if min(input_shape[1:]) < 32 else 0
        height, length = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in input_shape[1:])
        convolutions = [*_convolved(channels, c1, 5, padding=padding), *_convolved(c1, c2, 5)]
        linear = [nn.Linear(c2 * height * length, f1), nn.ReLU(), nn.Linear(f1, f2), nn.ReLU()]
        super().__init__(*convolutions, nn.Flatten(), *linear, nn.Linear(f2, num_classes))


class MNISTNet(nn.Sequential):
    """The two-layer CNN of the MNIST experiments (arXiv 1905.11528, 2002.00059): 3,274,634 parameters on MNIST.

    Two 5x5 convolutions of 32 and 64 channels, each followed by ReLU and 2x2 max-pooling, a fully connected layer of
    1024 units, `dropout`, and the classifier; layer by layer the network of the method's published code,
    github.com/cognizant-ai-labs/taylorglo. Images are of at least 4x4 pixels.
    """

    def __init__(
        self, *, input_shape: Sequence[int], num_classes: int, width: float = 1.0, dropout: float = 0.4
    ) -> None:
        channels = image_channels(input_shape, num_classes, 4)
        c1, c2, units = (scaled(size, width) for size in (32, 64, 1024))
        height, length = (side // 4 for side in input_shape[1:])
        convolutions = [*_convolved(channels, c1, 5, padding=2), *_convolved(c1, c2, 5, padding=2)]
        linear = [nn.Linear(c2 * height * length, units), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*convolutions, nn.Flatten(), *linear, nn.Linear(units, num_classes))


class AlexNet(StagedNetwork):
    """AlexNet (Krizhevsky, Sutskever, Hinton, 2012) for 32x32 images: 2.47 M parameters on CIFAR-10.

    Its five convolutions, of 64, 192, 384, 256 and 256 channels as in the one-column version (arXiv 1404.5997), and one
    linear layer instead of three: that of github.com/bearpaw/pytorch-classification. Images are of at least 8x8 pixels.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, width: float = 1.0, aux: int = 0) -> None:
        channels = image_channels(input_shape, num_classes, 8)
        c1, c2, c3, c4 = (scaled(size, width) for size in (64, 192, 384, 256))
        rest: Layers = [
            part for shape in ((c2, c3), (c3, c4), (c4, c4)) for part in (nn.Conv2d(*shape, 3, 1, 1), nn.ReLU())
        ]
        # ceil changes nothing for 32x32, and lets smaller images through
        first, second = _convolved(channels, c1, 11, 4, 5, ceil=True), _convolved(c1, c2, 5, 1, 2, ceil=True)
        stages: list[Layers] = [first, second, [*rest, nn.AdaptiveMaxPool2d(1)]]
        super().__init__(stages, [c1, c2, c4], pooled(c4, num_classes), num_classes, aux)


class AllCNN(StagedNetwork):
    """All-CNN-C (Springenberg, Dosovitskiy, Brox, Riedmiller, arXiv 1412.6806): 1.37 M parameters on CIFAR-10.

    Convolutions of stride 2 stand where others pool; no batch normalisation; dropout 0.2 on the input and 0.5 after
    each stride; an average over the map of class scores. The scores are logits here, without the paper's ReLU on them,
    which would not let a logit fall below 0. `dropout` is that after each stride; on the input it is 0.4 times that.
    Images are of at least 9x9 pixels.
    """

    def __init__(
        self, *, input_shape: Sequence[int], num_classes: int, width: float = 1.0, dropout: float = 0.5, aux: int = 0
    ) -> None:
        channels = image_channels(input_shape, num_classes, 9)
        c1, c2 = scaled(96, width), scaled(192, width)
        stages = [
            [nn.Dropout(0.4 * dropout), *_halving(channels, c1), nn.Dropout(dropout)],
            [*_halving(c1, c2), nn.Dropout(dropout)],
            [nn.Conv2d(c2, c2, 3), nn.ReLU(), nn.Conv2d(c2, c2, 1), nn.ReLU()],
        ]
        head = nn.Sequential(nn.Conv2d(c2, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(stages, [c1, c2, c2], head, num_classes, aux)


def _convolved(inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0, ceil: bool = False) -> Layers:
    """A convolution, ReLU and 2x2 max-pooling."""
    return [nn.Conv2d(inputs, outputs, size, stride, padding), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=ceil)]


def _halving(inputs: int, outputs: int) -> Layers:
    """Three convolutions, the last of stride 2."""
    shapes = (inputs, 1), (outputs, 1), (outputs, 2)
    convolutions = (nn.Conv2d(size, outputs, 3, stride=stride, padding=1) for size, stride in shapes)
    return [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
