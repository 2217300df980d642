"""Reference tasks as Lightning data modules.

Each has the attributes `num_classes`, `input_shape`, `mean` and `std`, so that an architecture can be built for it.
"""

from tglo_lightning.data.augment import BatchAugmentation
from tglo_lightning.data.digits import DigitsDataModule
from tglo_lightning.data.images import (
    CIFAR10DataModule,
    CIFAR10NDataModule,
    CIFAR100DataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    MNISTDataModule,
    SVHNDataModule,
)
from tglo_lightning.data.loaders import batch_loader
from tglo_lightning.data.noise import flip_labels
from tglo_lightning.data.tabular import TabularDataModule
from tglo_lightning.data.task import Task

__all__ = [
    "BatchAugmentation",
    "CIFAR10DataModule",
    "CIFAR10NDataModule",
    "CIFAR100DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "MNISTDataModule",
    "SVHNDataModule",
    "TabularDataModule",
    "Task",
    "batch_loader",
    "flip_labels",
]
