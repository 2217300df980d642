"""How a population of losses is scored."""

from tglo_lightning.evaluation.auto import choose_evaluator
from tglo_lightning.evaluation.inner import Budget, InnerFit
from tglo_lightning.evaluation.probing import Probe, probe
from tglo_lightning.evaluation.workers.processes import ProcessEvaluator
from tglo_lightning.evaluation.ranks import RankError, Ranks, check_strategy
from tglo_lightning.evaluation.workers.ray import RayEvaluator
from tglo_lightning.module.slot import LossSlot, restore_loss
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.evaluation.vectorized.evaluator import VectorizedEvaluator

__all__ = [
    "Budget",
    "InnerFit",
    "LossSlot",
    "Probe",
    "ProcessEvaluator",
    "RankError",
    "Ranks",
    "RayEvaluator",
    "TrainerEvaluator",
    "VectorizedEvaluator",
    "check_strategy",
    "choose_evaluator",
    "probe",
    "restore_loss",
]
