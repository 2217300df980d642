"""All-CNN-C: nothing but convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tglo_lightning.models.staged import StagedNetwork, image_channels, initialize, scaled

__all__ = ["AllCNN"]


class AllCNN(StagedNetwork):
    """All-CNN-C (Springenberg, Dosovitskiy, Brox, Riedmiller, arXiv 1412.6806): 1.37 M parameters on CIFAR-10.

    Convolutions of stride 2 stand where others pool; no batch normalisation; dropout 0.2 on the input and 0.5 after
    each stride; an average over the map of class scores. The scores are logits here, without the paper's ReLU on them,
    which would not let a logit fall below 0.

    Args:
        input_shape: (C, H, W) of one image, of at least 9x9.
        num_classes: number of outputs, at least 2.
        width: factor on every number of channels.
        dropout: after each stride; on the input it is 0.4 times that.
        aux: auxiliary classifiers, 0 to 2; see `StagedNetwork`.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: float = 1.0,
        dropout: float = 0.5,
        aux: int = 0,
    ) -> None:
        channels = image_channels(input_shape, num_classes, 9)
        c1, c2 = scaled(96, width), scaled(192, width)
        stages = [
            nn.Sequential(nn.Dropout(0.4 * dropout), *_halving(channels, c1), nn.Dropout(dropout)),
            nn.Sequential(*_halving(c1, c2), nn.Dropout(dropout)),
            nn.Sequential(nn.Conv2d(c2, c2, 3), nn.ReLU(), nn.Conv2d(c2, c2, 1), nn.ReLU()),
        ]
        head = nn.Sequential(nn.Conv2d(c2, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(stages, [c1, c2, c2], head, num_classes, aux)
        initialize(self)


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    """Three convolutions, the last of stride 2."""
    layers: list[nn.Module] = []
    for size, stride in ((inputs, 1), (outputs, 1), (outputs, 2)):
        layers += [nn.Conv2d(size, outputs, 3, stride=stride, padding=1), nn.ReLU()]
    return layers
