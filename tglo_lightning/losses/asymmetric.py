"""The asymmetric loss for multi-label targets."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tglo_lightning.losses.family import Axis
from tglo_lightning.losses.pointwise import BinaryLoss


class AsymmetricLoss(BinaryLoss):
    r"""Asymmetric loss: focal with an exponent for each side, and a margin below which negatives count for nothing.

    .. math:: L = -y (1 - h)^{g_+} \log h - (1 - y) h_m^{g_-} \log(1 - h_m), \qquad h_m = \max(h - m, 0)

    Args:
        g_pos: focusing exponent of positive targets, at least 0.
        g_neg: focusing exponent of negative targets, at least 0; 4 as published.
        margin: probability ``m`` below which a negative target counts for nothing, in [0, 0.5].
        options: those of :class:`~tglo_lightning.losses.BinaryLoss`.

    Source: Ridnik et al., arXiv 2009.14119.
    """

    family = "asymmetric"
    axes = (
        Axis("g_pos", default=0.5, low=0.0),
        Axis("g_neg", default=4.0, low=0.0),
        Axis("margin", default=0.05, low=0.0, high=0.5),
    )
    text = "-y (1 - h)^{g_pos} log(h) - (1 - y) h_m^{g_neg} log(1 - h_m), h_m = max(h - {margin}, 0)"
    python = (
        "-y * torch.exp({g_pos} * log_m) * log_h - (1 - y) * torch.where(h > {margin}, "
        "(h - {margin}).clamp(min=tiny) ** {g_neg} * torch.log(m + {margin} + tiny), 0.0)"
    )

    def __init__(self, g_pos: float = 0.5, g_neg: float = 4.0, margin: float = 0.05, **options: Any) -> None:
        super().__init__((g_pos, g_neg, margin), **options)

    def values(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each logit."""
        g_pos, g_neg, margin = self.parameters_of(input)
        tiny = torch.finfo(input.dtype).tiny
        positive = torch.exp(g_pos * F.logsigmoid(-input)) * F.logsigmoid(input)
        over = torch.sigmoid(input) - margin
        # A power has no slope at 0, and 1 - h + m is exact where h is close to 1
        negative = over.clamp(min=tiny) ** g_neg * torch.log(torch.sigmoid(-input) + margin + tiny)
        return -target * positive - (1 - target) * torch.where(over > 0, negative, 0.0)
