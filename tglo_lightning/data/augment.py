"""Augmentation of whole batches of images."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.arguments import flag, integer, number


class BatchAugmentation:
    """Random crop, flip, Cutout, then CutMix or Mixup, each drawn anew for every batch.

    Crop, flip and CutMix are `kornia`'s; with the boxes of CutMix inside of the image and one for each sample. Cutout
    and Mixup follow their papers, where `kornia` differs: a cut may reach over the border, and the share of Mixup is
    one for the batch, from any Beta distribution. Everything is drawn from torch's global generator on the CPU.

    Args:
        crop_padding: pixels of black around an image before a crop of its own size; 0 leaves it whole.
        flip: mirror every other image, on average, left to right.
        cutout: side in pixels of a square, around a random pixel, painted over with the mean colour (arXiv
            1708.04552); 0 for none.
        cutmix: probability that a batch has boxes of its images replaced by those of others, and labels mixed in
            proportion to the area (arXiv 1905.04899).
        cutmix_alpha: of the Beta(alpha, alpha) distribution that the kept share of the area comes from.
        mixup: probability that a batch is averaged with a permutation of itself (arXiv 1710.09412).
        mixup_alpha: of the Beta(alpha, alpha) distribution that the weight comes from.

    Raises:
        ImportError: `kornia` is not installed.
        TypeError, ValueError: an argument of a wrong kind or out of range, or both CutMix and Mixup.
    """

    def __init__(
        self,
        *,
        crop_padding: int = 4,
        flip: bool = True,
        cutout: int = 0,
        cutmix: float = 0.0,
        cutmix_alpha: float = 1.0,
        mixup: float = 0.0,
        mixup_alpha: float = 1.0,
    ) -> None:
        self.crop_padding = integer("crop_padding", crop_padding, 0)
        self.flip = flag("flip", flip)
        self.cutout = integer("cutout", cutout, 0)
        self.cutmix = number("cutmix", cutmix, least=0, most=1)
        self.cutmix_alpha = number("cutmix_alpha", cutmix_alpha, above=0)
        self.mixup = number("mixup", mixup, least=0, most=1)
        self.mixup_alpha = number("mixup_alpha", mixup_alpha, above=0)
        if cutmix and mixup:
            raise ValueError(f"cutmix and mixup cannot both be used, got probabilities {cutmix} and {mixup}")
        kornia = _kornia()
        self._crops: dict[tuple[int, ...], Any] = {}
        self._flip = kornia.RandomHorizontalFlip(p=0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._mix = kornia.RandomCutMixV2(
                p=cutmix, beta=cutmix_alpha, data_keys=["input", "class"], use_correct_lambda=True
            )

    def __call__(
        self, images: Tensor, labels: Tensor, *, num_classes: int, fill: Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """An augmented batch; the tensors that come in stay as they are.

        Args:
            images: shape (B, C, H, W), floating point.
            labels: class indices, shape (B,); others are a `ValueError`.
            fill: mean colour, C numbers; the batch's own mean if None.

        Returns:
            Images (B, C, H, W), and the labels (B,) as they came; with CutMix or Mixup, probabilities (B, num_classes)
            that sum to 1, of the images' type.
        """
        if images.dim() != 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"augment needs images (B, C, H, W) and labels (B,), got {tuple(images.shape)}, {tuple(labels.shape)}"
            )
        if self.crop_padding:
            images = self._crop(images)
        if self.flip:
            images = self._flip(images)
        if self.cutout:
            images = cut_out(images, self.cutout, fill)
        if self.cutmix:
            return self._cut_and_mix(images, labels, num_classes)
        if self.mixup:
            return mix_up(images, F.one_hot(labels, num_classes), self.mixup, self.mixup_alpha)
        return images, labels

    def _crop(self, images: Tensor) -> Tensor:
        size = tuple(images.shape[-2:])
        if size not in self._crops:
            self._crops[size] = _kornia().RandomCrop(size, padding=self.crop_padding)
        cropped: Tensor = self._crops[size](images)
        return cropped

    def _cut_and_mix(self, images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        mixed, [pairs] = self._mix(images, labels)
        own, other = (F.one_hot(index.long(), num_classes).to(images.dtype) for index in pairs[:, :2].unbind(1))
        return mixed, torch.lerp(other, own, pairs[:, 2:].to(images.dtype))


def cut_out(images: Tensor, length: int, fill: Sequence[float] | None = None) -> Tensor:
    """Paint over a square of each image (B, C, H, W), its centre any pixel; it may reach over the border."""

    def inside(size: int) -> Tensor:
        start = torch.randint(size, (len(images), 1)) - length // 2
        position = torch.arange(size)
        return ((position >= start) & (position < start + length)).to(images.device)

    mask = inside(images.shape[-2])[:, None, :, None] & inside(images.shape[-1])[:, None, None, :]
    colour = images.mean(dim=(0, 2, 3)) if fill is None else images.new_tensor(list(fill))
    return torch.where(mask, colour[:, None, None], images)


def mix_up(images: Tensor, targets: Tensor, probability: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Average a batch and its one-hot targets with a permutation of itself, by one weight from Beta(alpha, alpha)."""
    targets = targets.to(images.dtype)
    # All drawn always, so that what follows in the random stream does not depend on the outcome
    mixes = float(torch.rand(())) < probability
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(images)).to(images.device)
    if not mixes:
        return images, targets
    return torch.lerp(images[order], images, weight), torch.lerp(targets[order], targets, weight)


def _kornia() -> Any:
    try:
        import kornia.augmentation
    except ImportError as error:
        raise ImportError("Augmentation needs kornia: pip install 'tglo-lightning[vision]'") from error
    return kornia.augmentation
