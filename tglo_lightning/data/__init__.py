"""Reference tasks as Lightning data modules.

Each has the attributes `num_classes` and `input_shape`, so that an architecture can be built for it.
"""

from tglo_lightning.data.digits import DigitsDataModule
from tglo_lightning.data.loaders import batch_loader
from tglo_lightning.data.mnist import MNISTDataModule
from tglo_lightning.data.noise import flip_labels

__all__ = ["DigitsDataModule", "MNISTDataModule", "batch_loader", "flip_labels"]
