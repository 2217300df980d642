"""Reference architectures, and the LightningModule that trains them.

Networks take `input_shape` and `num_classes` from the task; the larger ones are built as published for 32x32 images.
"""

from tglo_lightning.models.classifier import Classifier
from tglo_lightning.models.plain import MLP, AlexNet, AllCNN, LeNet5, MNISTNet, SmallCNN
from tglo_lightning.models.residual import DenseNet, PreResNet, PyramidNet, ResNet, WideResNet
from tglo_lightning.models.staged import Normalize, StagedNetwork

__all__ = [
    "MLP",
    "AlexNet",
    "AllCNN",
    "Classifier",
    "DenseNet",
    "LeNet5",
    "MNISTNet",
    "Normalize",
    "PreResNet",
    "PyramidNet",
    "ResNet",
    "SmallCNN",
    "StagedNetwork",
    "WideResNet",
]
