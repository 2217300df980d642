"""Losses of the family ``-sum_k f(y_k, h_k)``: pure functions, and modules that replace ``nn.CrossEntropyLoss``."""

from tglo_lightning.losses.base import SeparableLoss
from tglo_lightning.losses.classic import BaikalLoss, BrierLoss, CrossEntropyLoss, SmoothedCrossEntropyLoss
from tglo_lightning.losses.family import FAMILIES, Axis, family
from tglo_lightning.losses.published import cross_entropy_expansion, published_theta
from tglo_lightning.losses.registry import as_loss, loss_like, loss_options
from tglo_lightning.losses.taylorglo import TaylorGLOLoss

__all__ = [
    "FAMILIES",
    "Axis",
    "BaikalLoss",
    "BrierLoss",
    "CrossEntropyLoss",
    "SeparableLoss",
    "SmoothedCrossEntropyLoss",
    "TaylorGLOLoss",
    "as_loss",
    "cross_entropy_expansion",
    "family",
    "loss_like",
    "loss_options",
    "published_theta",
]
