"""Cross-entropy's Taylor series, cut off."""

from typing import Any

from torch import Tensor

from tglo_lightning.losses.base import LinearLoss
from tglo_lightning.losses.classification import labelled
from tglo_lightning.losses.family import Axis

LARGEST = 10


class TaylorCrossEntropyLoss(LinearLoss):
    """Taylor cross-entropy, ``f(y, h) = -y sum_(i <= k) (1 - h)^i / i``, for noisy labels.

    It is MAE at ``k = 1`` and tends to cross-entropy as ``k`` grows. The published order is an integer. Between two
    integers the last term counts by the fraction, so that a search can move in ``k`` as in any number.

    Args:
        k: order from 1 to 10; 2 by default.
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Feng et al., *Can Cross Entropy Loss Be Robust to Label Noise?* (IJCAI 2020, doi 10.24963/ijcai.2020/305).
    """

    family = "taylor_ce"
    axes = (Axis("k", default=2.0, low=1.0, high=float(LARGEST)),)
    text = "-y sum_(i <= {k}) (1 - h)^i / i"

    def __init__(self, k: float = 2.0, **options: Any) -> None:
        super().__init__((k,), **options)

    @property
    def expression(self) -> str:
        """``f(y, h)`` in Python, see :func:`~tglo_lightning.search.export_loss`."""
        shares = [(i, min(max(float(self.theta[0]) - i + 1, 0.0), 1.0) / i) for i in range(1, LARGEST + 1)]
        return f"-y * ({' + '.join(f'{share} * (1 - h) ** {i}' for i, share in shares if share)})"

    def g(self, h: Tensor, log_h: Tensor) -> Tensor:
        """``-sum_i (1 - h)^i / i``."""
        return -(1 - h) * self._sum([1 / i for i in range(1, LARGEST + 1)], 1 - h)

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``y sum_i (1 - h)^(i - 1)``."""
        return labelled(y, self._sum([1.0] * LARGEST, 1 - h))

    def _sum(self, factors: list[float], missing: Tensor) -> Tensor:
        """``sum_i w_i factor_i missing^(i - 1)``, where ``w_i`` is the share of term ``i``: 1, a fraction, then 0."""
        k = self.theta[0].to(missing.dtype)
        total = missing * 0
        for i in range(LARGEST, 0, -1):
            total = total * missing + (k - i + 1).clamp(0, 1) * factors[i - 1]
        return total
