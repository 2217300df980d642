"""Logit adjustment for unbalanced classes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tglo_lightning.losses.class_priors import PriorLoss
from tglo_lightning.losses.classification import labelled
from tglo_lightning.losses.family import Axis


class LogitAdjustedLoss(PriorLoss):
    r"""Cross-entropy of :math:`z + \tau \log p` with the class frequencies ``p`` of the training labels.

    For unbalanced classes: the network has to be right by a margin that is larger for rare classes, and its own logits
    ``z``, without the adjustment, predict as if the classes were balanced. Not separable: the theory does not explain
    it.

    Args:
        tau: strength, at least 0; 1 as published. At 0, or with balanced classes, the loss is cross-entropy.
        priors: frequencies or numbers of samples of the classes, shape ``(n,)``.
        options: those of :class:`~tglo_lightning.losses.ClassificationLoss`.

    Source: Menon et al., arXiv 2007.07314.
    """

    family = "logit_adjustment"
    axes = (Axis("tau", default=1.0, low=0.0, spread=0.5),)
    text = "-log(softmax(z + {tau} log(priors))_T)"

    def __init__(self, tau: float = 1.0, *, priors: Tensor | Sequence[float] | None = None, **options: Any) -> None:
        super().__init__((tau,), priors=priors, **options)

    @property
    def expression(self) -> str:
        """``f(y, h)`` in Python, see :func:`~tglo_lightning.search.export_loss`."""
        assert self.priors is not None
        margin = (self.theta[0] * self.priors.log()).tolist()
        tensor = f"torch.tensor({margin}, dtype=torch.float64).to(z).view(-1, *[1] * (z.dim() - 2))"
        return f"y * (z + {tensor}).log_softmax(1)"

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """``-y log softmax(z + tau log priors)``."""
        margin = self.theta[0].to(logits.dtype) * self.log_priors(logits)
        return labelled(y, -(logits + margin.view(-1, *[1] * (logits.dim() - 2))).log_softmax(dim=1))
