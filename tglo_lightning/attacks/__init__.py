"""Adversarial evaluation of image classifiers, and its report.

The attack libraries are imported when an attack first runs.
"""

from tglo_lightning.attacks.base import Attack
from tglo_lightning.attacks.decision import HopSkipJump
from tglo_lightning.attacks.ensemble import AutoAttack, Square
from tglo_lightning.attacks.evaluate import GradientMaskingWarning, evaluate_robustness
from tglo_lightning.attacks.gradient import FGSM, PGD
from tglo_lightning.attacks.model import AttackedModel
from tglo_lightning.reporting.robustness import AttackResult, Finding, RobustnessReport

__all__ = [
    "FGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "AttackedModel",
    "AutoAttack",
    "Finding",
    "GradientMaskingWarning",
    "HopSkipJump",
    "RobustnessReport",
    "Square",
    "evaluate_robustness",
]
