"""How a population of losses is scored."""

from tglo_lightning.evaluation.slot import LossSlot, restore_loss
from tglo_lightning.evaluation.trainer import Budget, Probe, TrainerEvaluator

__all__ = ["Budget", "LossSlot", "Probe", "TrainerEvaluator", "restore_loss"]
