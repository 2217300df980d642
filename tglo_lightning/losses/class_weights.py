"""Cross-entropy with class weights from the class frequencies."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.class_priors import PriorLoss
from tglo_lightning.losses.cross_entropy import CrossEntropyLoss
from tglo_lightning.losses.family import Axis


class ClassWeightedLoss(PriorLoss, CrossEntropyLoss):
    r"""Cross-entropy with the weights :math:`w_k \propto p_k^{-e}`, ``p`` being the class frequencies in training.

    For unbalanced classes. The weights are normalised so that the weight of a training sample is 1 on average.

    Args:
        exponent: ``e``, at least 0. 1 weighs by the inverse frequency, as is usual; 0.5 by its square root, as in
            Mahajan et al., arXiv 1805.00932; 0 not at all.
        priors: frequencies or numbers of samples of the classes, shape ``(n,)``.
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`; ``weight`` multiplies these weights.
    """

    family = "class_weights"
    axes = (Axis("exponent", default=1.0, low=0.0, spread=0.5),)
    text = "y log(h), classes weighted by priors^-{exponent}"

    def __init__(
        self, exponent: float = 1.0, *, priors: Tensor | Sequence[float] | None = None, **options: Any
    ) -> None:
        super().__init__((exponent,), priors=priors, **options)

    @property
    def class_weights(self) -> Tensor | None:
        """Weight of each class, shape ``(n,)``; those of the argument ``weight`` while there are no priors."""
        if self.priors is None:
            return self.weight
        log_p = self.log_priors(self.theta)
        log_w = -self.theta[0] * log_p
        weights = torch.exp(log_w - torch.logsumexp(log_p + log_w, dim=0))
        return weights if self.weight is None else weights * self.weight
