"""Reference architectures, and the LightningModule that trains them.

Networks take `input_shape` and `num_classes` from the task; the larger ones are built as published for 32x32 images.
"""

from tglo_lightning.models.allcnn import AllCNN
from tglo_lightning.models.classifier import Classifier
from tglo_lightning.models.densenet import DenseNet
from tglo_lightning.models.networks import MLP, SmallCNN
from tglo_lightning.models.pyramidnet import PyramidNet
from tglo_lightning.models.resnet import PreResNet, ResNet
from tglo_lightning.models.small import AlexNet, LeNet5, MNISTNet
from tglo_lightning.models.staged import Normalize, StagedNetwork
from tglo_lightning.models.wideresnet import WideResNet

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
