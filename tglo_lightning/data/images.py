"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN, from the Hugging Face hub or a local copy."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from tglo_lightning.arguments import choice, flag, integer
from tglo_lightning.data.hub import load_columns, load_images
from tglo_lightning.data.task import Splits, Task

_PIXEL_MAX = 255.0
HUMAN_LABELS = {
    "worse": "worse_label",
    "aggregate": "aggre_label",
    **{f"random{i}": f"random_label{i}" for i in (1, 2, 3)},
}


class ImageDataModule(Task):
    """Labelled images with an official training and test set, as floats with pixels in [0, 1].

    Validation samples are held out of the official training samples by a random permutation; the official test samples
    are the test set. Images are decoded once and kept as uint8, in memory and in a file; a batch becomes float when it
    is read. Subclasses name the data set; see `CIFAR10DataModule`. The other arguments are those of `Task`.

    Args:
        source: name on the hub, or a folder with the same parquet files. Read with Hugging Face `datasets`
            (`pip install 'tglo-lightning[data]'`).
        val_size: validation samples out of the whole official training set; out of a smaller copy, the same share.
        normalize: whether `mean` and `std` are those of the data set, for a `Normalize` layer, or None.
        cache_dir: folder for the decoded images; by default one beside the cache of `datasets`, see `load_images`.

    Raises:
        ValueError: an argument out of range, or nothing left to train or to validate on.
    """

    default_source: ClassVar[str]
    subset: ClassVar[str | None] = None
    """Configuration of the data set on the hub, a subfolder of a copy; None where there is only one."""
    official_train: ClassVar[int]
    num_classes = 10
    input_shape = (3, 32, 32)

    def __init__(
        self,
        *,
        source: str | None = None,
        val_size: int = 5000,
        normalize: bool = True,
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not flag("normalize", normalize):
            self.mean = self.std = None
        self.source = self.default_source if source is None else str(source)
        self.val_size = integer("val_size", val_size, 1, self.official_train - 1)
        self.cache_dir = cache_dir

    def _images(self, split: str) -> tuple[Tensor, Tensor]:
        images, labels = load_images(self.source, split, self.cache_dir, subset=self.subset)
        shape, most = tuple(images.shape[1:]), int(labels.max())
        if shape != self.input_shape or most >= self.num_classes:
            raise ValueError(
                f"source {self.source} has images of shape {shape} and labels up to {most}; "
                f"{type(self).__name__} needs {self.input_shape} and up to {self.num_classes - 1}"
            )
        return images, labels

    def prepare_data(self) -> None:
        """Fetch and decode the images, where that was not done before."""
        for split in ("train", "test"):
            load_images(self.source, split, self.cache_dir, subset=self.subset)

    def _load(self, generator: torch.Generator) -> Splits:
        images, labels = self._images("train")
        held_out = round(self.val_size * min(1.0, len(labels) / self.official_train))
        if not 1 <= held_out < len(labels):
            raise ValueError(
                f"val_size={self.val_size} of {self.official_train} is {held_out} of the {len(labels)} training images "
                f"in source {self.source}; choose it so that some are left for each of validation and training"
            )
        val, train = torch.randperm(len(labels), generator=generator).tensor_split([held_out])
        train = self._share(train)
        # Validation first, so that it is the same whatever share is trained on
        val_labels = self._noisy(labels[val], generator)
        return (
            Pixels(images[train], self._noisy(labels[train], generator)),
            Pixels(images[val], val_labels),
            Pixels(*self._images("test")),
        )


class Pixels(TensorDataset):
    """Images kept as uint8 and read as float32 in [0, 1], with their labels."""

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        images, labels = self.tensors
        return images[index].float().div_(_PIXEL_MAX), labels[index]


class MNISTDataModule(ImageDataModule):
    """MNIST: handwritten digits (1, 28, 28) in 10 classes; 55,000 training, 5,000 validation, 10,000 test images."""

    default_source = "ylecun/mnist"
    official_train = 60_000
    input_shape = (1, 28, 28)
    mean = (0.1307,)
    std = (0.3081,)


class FashionMNISTDataModule(ImageDataModule):
    """Fashion-MNIST: clothing (1, 28, 28) in 10 classes; 55,000 training, 5,000 validation, 10,000 test images."""

    default_source = "zalando-datasets/fashion_mnist"
    official_train = 60_000
    input_shape = (1, 28, 28)
    mean = (0.2860,)
    std = (0.3530,)


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10: photographs (3, 32, 32) in 10 classes; 45,000 training, 5,000 validation, 10,000 test images."""

    default_source = "uoft-cs/cifar10"
    official_train = 50_000
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)


class CIFAR10NDataModule(CIFAR10DataModule):
    """CIFAR-10N: CIFAR-10 with labels given by people in training *and* validation; the test labels stay clean.

    Args:
        labels: ``"worse"`` (of three people's labels a wrong one if there is one, 40 % wrong), ``"random1"`` to
            ``"random3"`` (one person's, 17 to 18 %) or ``"aggregate"`` (the majority's, 9 %).
        labels_source: folder with parquet files, or name on the hub, of a table with one row for each official
            training image, in official order. Its columns are called as ``labels``, or as in the authors' files,
            ``worse_label``, ``aggre_label``, ``random_label1``; a column ``label`` of true labels is checked.
        options: those of `ImageDataModule`. ``label_noise`` comes on top.

    Raises:
        ValueError: an argument out of range, no such column, or a table of other images.

    Source: Wei et al., arXiv 2110.12088.
    """

    def __init__(self, *, labels: str = "worse", labels_source: str, **options: Any) -> None:
        super().__init__(**options)
        self.labels, self.labels_source = choice("labels", labels, tuple(HUMAN_LABELS)), str(labels_source)

    def _images(self, split: str) -> tuple[Tensor, Tensor]:
        images, true = super()._images(split)
        if split == "test":
            return images, true
        names = (self.labels, HUMAN_LABELS[self.labels])
        columns = load_columns(self.labels_source, "train", (*names, "label"))
        given = next((columns[name] for name in names if name in columns), None)
        if given is None:
            raise ValueError(f"labels_source {self.labels_source} must have a column {names[0]!r} or {names[1]!r}")
        if given.shape != true.shape or not torch.equal(columns.get("label", true), true):
            raise ValueError(
                f"labels_source {self.labels_source} holds labels of other images than source {self.source}: it must "
                f"have one row for each of the {len(true)} training images, in their order"
            )
        return images, given


class CIFAR100DataModule(ImageDataModule):
    """CIFAR-100: photographs (3, 32, 32) in 100 classes; 45,000 training, 5,000 validation, 10,000 test images."""

    default_source = "uoft-cs/cifar100"
    official_train = 50_000
    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)


class SVHNDataModule(ImageDataModule):
    """SVHN, cropped digits (3, 32, 32) in 10 classes; 47,225 training, 26,032 validation, 26,032 test images.

    The official extra training images are not used. `val_size` is 26,032 unless given.
    """

    default_source = "ufldl-stanford/svhn"
    subset = "cropped_digits"
    official_train = 73_257
    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)

    def __init__(self, *, val_size: int = 26_032, **options: Any) -> None:
        super().__init__(val_size=val_size, **options)
