"""Losses, one family a file: modules that replace ``nn.CrossEntropyLoss``, ``nn.BCEWithLogitsLoss``, ``nn.MSELoss``."""

from tglo_lightning.losses.asymmetric import AsymmetricLoss
from tglo_lightning.losses.baikal import BaikalLoss
from tglo_lightning.losses.barron import BarronLoss
from tglo_lightning.losses.base import LinearLoss, SeparableLoss
from tglo_lightning.losses.binary_focal import BinaryFocalLoss
from tglo_lightning.losses.binary_smoothing import BinarySmoothingLoss
from tglo_lightning.losses.binary_taylor import BinaryTaylorLoss
from tglo_lightning.losses.brier import BrierLoss
from tglo_lightning.losses.class_priors import class_priors
from tglo_lightning.losses.class_weights import ClassWeightedLoss
from tglo_lightning.losses.classification import ClassificationLoss
from tglo_lightning.losses.cross_entropy import CrossEntropyLoss
from tglo_lightning.losses.family import FAMILIES, Axis, family
from tglo_lightning.losses.focal import FocalLoss
from tglo_lightning.losses.forward_correction import ForwardCorrectionLoss
from tglo_lightning.losses.gce import GCELoss
from tglo_lightning.losses.huber import HuberLoss
from tglo_lightning.losses.logit_adjustment import LogitAdjustedLoss
from tglo_lightning.losses.loss import FamilyLoss
from tglo_lightning.losses.mae import MAELoss
from tglo_lightning.losses.nce_rce import NCERCELoss
from tglo_lightning.losses.pointwise import BinaryLoss, PointwiseLoss, RegressionLoss
from tglo_lightning.losses.published import cross_entropy_expansion, published_theta
from tglo_lightning.losses.registry import as_loss, loss_like, loss_options
from tglo_lightning.losses.robust import robust
from tglo_lightning.losses.sce import SCELoss
from tglo_lightning.losses.smoothing import SmoothedCrossEntropyLoss
from tglo_lightning.losses.taylor_ce import TaylorCrossEntropyLoss
from tglo_lightning.losses.taylorglo import TaylorGLOLoss

__all__ = [
    "FAMILIES",
    "AsymmetricLoss",
    "Axis",
    "BaikalLoss",
    "BarronLoss",
    "BinaryFocalLoss",
    "BinaryLoss",
    "BinarySmoothingLoss",
    "BinaryTaylorLoss",
    "BrierLoss",
    "ClassWeightedLoss",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "FamilyLoss",
    "FocalLoss",
    "ForwardCorrectionLoss",
    "GCELoss",
    "HuberLoss",
    "LinearLoss",
    "LogitAdjustedLoss",
    "MAELoss",
    "NCERCELoss",
    "PointwiseLoss",
    "RegressionLoss",
    "SCELoss",
    "SeparableLoss",
    "SmoothedCrossEntropyLoss",
    "TaylorCrossEntropyLoss",
    "TaylorGLOLoss",
    "as_loss",
    "class_priors",
    "cross_entropy_expansion",
    "family",
    "loss_like",
    "loss_options",
    "published_theta",
    "robust",
]
