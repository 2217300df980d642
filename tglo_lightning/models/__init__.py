"""Reference architectures, and the LightningModule that trains them."""

from tglo_lightning.models.classifier import Classifier
from tglo_lightning.models.networks import MLP, SmallCNN

__all__ = ["MLP", "Classifier", "SmallCNN"]
