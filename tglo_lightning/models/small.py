"""Small convolutional networks for grey 28x28 digits and 32x32 pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tglo_lightning.models.staged import StagedNetwork, image_channels, initialize, pooled, scaled

__all__ = ["AlexNet", "LeNet5", "MNISTNet"]


class LeNet5(nn.Module):
    """LeNet-5 (LeCun, Bottou, Bengio, Haffner, 1998), as it is built today: 61,706 parameters on MNIST.

    Two 5x5 convolutions of 6 and 16 channels, each followed by 2x2 pooling, then fully connected layers of 120 and 84.
    ReLU and max-pooling stand where the original has tanh and trained average pooling, and the second convolution sees
    all 6 channels. Images of 28x28 pixels are padded to 32x32.

    Args:
        input_shape: (C, H, W) of one image, of at least 28x28.
        num_classes: number of outputs, at least 2.
        width: factor on the size of every hidden layer.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = image_channels(input_shape, num_classes, 28)
        c1, c2, f1, f2 = (scaled(size, width) for size in (6, 16, 120, 84))
        padding = 2 if min(input_shape[1:]) < 32 else 0
        height, length = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in input_shape[1:])
        self.layers = nn.Sequential(
            nn.Conv2d(channels, c1, 5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(c1, c2, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(c2 * height * length, f1),
            nn.ReLU(),
            nn.Linear(f1, f2),
            nn.ReLU(),
            nn.Linear(f2, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W)."""
        return self.layers(x)


class MNISTNet(nn.Module):
    """The two-layer CNN of the MNIST experiments (arXiv 1905.11528, 2002.00059): 3,274,634 parameters on MNIST.

    Two 5x5 convolutions of 32 and 64 channels, each followed by ReLU and 2x2 max-pooling, a fully connected layer of
    1024 units, dropout 0.4, and the classifier; layer by layer the network of the method's published code,
    github.com/cognizant-ai-labs/taylorglo.

    Args:
        input_shape: (C, H, W) of one image, of at least 4x4.
        num_classes: number of outputs, at least 2.
        width: factor on the size of every hidden layer.
        dropout: share of the 1024 units that is dropped in training.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self, *, input_shape: Sequence[int], num_classes: int, width: float = 1.0, dropout: float = 0.4
    ) -> None:
        super().__init__()
        channels = image_channels(input_shape, num_classes, 4)
        c1, c2, units = (scaled(size, width) for size in (32, 64, 1024))
        height, length = (side // 4 for side in input_shape[1:])
        self.layers = nn.Sequential(
            nn.Conv2d(channels, c1, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(c2 * height * length, units),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(units, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W)."""
        return self.layers(x)


class AlexNet(StagedNetwork):
    """AlexNet (Krizhevsky, Sutskever, Hinton, 2012) for 32x32 images: 2.47 M parameters on CIFAR-10.

    Its five convolutions, of 64, 192, 384, 256 and 256 channels as in the one-column version (arXiv 1404.5997), and one
    linear layer instead of three: the variant of github.com/bearpaw/pytorch-classification.

    Args:
        input_shape: (C, H, W) of one image, of at least 8x8.
        num_classes: number of outputs, at least 2.
        width: factor on every number of channels.
        aux: auxiliary classifiers, 0 to 2; see `StagedNetwork`.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, *, input_shape: Sequence[int], num_classes: int, width: float = 1.0, aux: int = 0) -> None:
        channels = image_channels(input_shape, num_classes, 8)
        c1, c2, c3, c4 = (scaled(size, width) for size in (64, 192, 384, 256))
        # ceil_mode changes nothing for 32x32, and lets smaller images through
        stages = [
            nn.Sequential(nn.Conv2d(channels, c1, 11, 4, 5), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
            nn.Sequential(nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
            nn.Sequential(
                nn.Conv2d(c2, c3, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(c3, c4, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(c4, c4, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveMaxPool2d(1),
            ),
        ]
        super().__init__(stages, [c1, c2, c4], pooled(c4, num_classes), num_classes, aux)
        initialize(self)
