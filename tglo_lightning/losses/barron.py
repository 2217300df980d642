"""A general robust loss for regression."""

from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.family import Axis
from tglo_lightning.losses.pointwise import RegressionLoss

# So near to 2 or 0 the limit is exact enough
NEAR = 1e-4


class BarronLoss(RegressionLoss):
    r"""Barron's general robust loss of the residual ``x``, :math:`2 c^2 \rho(x / c)` with

    .. math:: \rho(x) = \frac{|\alpha - 2|}{\alpha}
        \left( \left( \frac{x^2}{|\alpha - 2|} + 1 \right)^{\alpha / 2} - 1 \right)

    and its limits. Below ``c`` it is the squared error, whatever ``alpha``. Above, ``alpha`` says how much a large
    residual counts: 2 is the squared error, 1 a smooth absolute error, near to the Huber loss, 0 the Cauchy loss, -2
    that of Geman and McClure, which gives up on outliers.

    Args:
        alpha: shape.
        scale: ``c``, above 0, in units of the target.
        options: those of :class:`~tglo_lightning.losses.PointwiseLoss`.

    Source: Barron, arXiv 1701.03077.
    """

    family = "barron"
    axes = (Axis("alpha", default=1.0, low=-6.0, high=3.0), Axis("scale", default=1.0, low=0.0))
    text = "general robust loss of the residual, alpha = {alpha}, scale = {scale}"

    def __init__(self, alpha: float = 1.0, scale: float = 1.0, **options: Any) -> None:
        super().__init__((alpha, scale), **options)

    @property
    def expression(self) -> str:
        """The loss of a residual ``x`` in Python, see :func:`~tglo_lightning.search.export_loss`."""
        alpha, scale = self.theta.tolist()
        square, b = f"(x / {scale}).square()", abs(alpha - 2)
        if b < NEAR:
            rho = f"{square} / 2"
        elif abs(alpha) < NEAR:
            rho = f"torch.log1p({square} / 2)"
        else:
            rho = f"{b / alpha} * torch.expm1({alpha / 2} * torch.log1p({square} / {b}))"
        return f"{2 * scale**2} * {rho}"

    def residual_values(self, x: Tensor) -> Tensor:
        """The loss of each residual."""
        alpha, scale = self.parameters_of(x)
        square = (x / scale).square()
        squared, cauchy = (alpha - 2).abs() < NEAR, alpha.abs() < NEAR
        # Neither branch may divide by 0, or the gradient is lost in the other
        a = torch.where(squared | cauchy, torch.ones_like(alpha), alpha)
        b = (a - 2).abs()
        # b / a * ((square / b + 1)^(a / 2) - 1), exact for small residuals
        general = b / a * torch.expm1(a / 2 * torch.log1p(square / b))
        values = torch.where(squared, square / 2, torch.where(cauchy, torch.log1p(square / 2), general))
        return 2 * scale.square() * values
