"""Why a loss works: pure functions of a loss (or of ``theta``) and the number of classes. No Lightning, no logging."""

from tglo_lightning.theory.attraction_law import (
    Equilibrium,
    ZeroError,
    attraction_coefficients,
    attraction_curve,
    equilibria,
    implied,
    zero_error,
)
from tglo_lightning.theory.explanation import Explanation, explain
from tglo_lightning.theory.learning_rule import attraction, entropy_rate, gamma, logit_velocity
from tglo_lightning.theory.null_epoch import Trainability, trainability
from tglo_lightning.theory.parameters import coefficients, from_minimal, label_smoothed, to_minimal
from tglo_lightning.theory.subject import LossLike

__all__ = [
    "Equilibrium",
    "Explanation",
    "LossLike",
    "Trainability",
    "ZeroError",
    "attraction",
    "attraction_coefficients",
    "attraction_curve",
    "coefficients",
    "entropy_rate",
    "equilibria",
    "explain",
    "from_minimal",
    "gamma",
    "implied",
    "label_smoothed",
    "logit_velocity",
    "to_minimal",
    "trainability",
    "zero_error",
]
