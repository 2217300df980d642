"""Why a loss works: pure functions of a loss (or of ``theta``) and the number of classes. No Lightning, no logging."""

from tglo_lightning.losses.shape import (
    cross_entropy_twin,
    from_minimal,
    from_shape,
    mean_pull,
    normalized,
    pull,
    to_shape,
)
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
from tglo_lightning.theory.parameters import coefficients, label_smoothed, to_minimal
from tglo_lightning.theory.pointwise import explain_pointwise, relative_slope
from tglo_lightning.theory.shape import Pull, pull_of
from tglo_lightning.theory.subject import LossLike

__all__ = [
    "Equilibrium",
    "Explanation",
    "LossLike",
    "Pull",
    "Trainability",
    "ZeroError",
    "attraction",
    "attraction_coefficients",
    "attraction_curve",
    "coefficients",
    "cross_entropy_twin",
    "entropy_rate",
    "equilibria",
    "explain",
    "explain_pointwise",
    "from_minimal",
    "from_shape",
    "gamma",
    "implied",
    "label_smoothed",
    "logit_velocity",
    "mean_pull",
    "normalized",
    "pull",
    "pull_of",
    "relative_slope",
    "to_minimal",
    "to_shape",
    "trainability",
    "zero_error",
]
