"""How populations train: nested Trainers, stacks in one pass, workers, ranks."""

from tglo_lightning.evaluation.auto import choose_evaluator, seconds_per_candidate
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.probing import Probe, probe
from tglo_lightning.evaluation.ranks import RankError, Ranks, check_strategy
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.evaluation.vectorized import VectorizedEvaluator
from tglo_lightning.evaluation.workers.processes import ProcessEvaluator
from tglo_lightning.evaluation.workers.ray import RayEvaluator

__all__ = [
    "InnerFit",
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
    "seconds_per_candidate",
]
