"""Bases of the losses that compare one output with one target: yes or no, or a number."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.losses.loss import FamilyLoss


class PointwiseLoss(FamilyLoss, abstract=True):
    """Base of the losses that are computed output by output. A subclass says by :meth:`values` how.

    Args:
        weight: factors that broadcast against the outputs.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shape:
        - input: outputs, any shape. Computed in float32 or better, also under autocast.
        - target: the same shape.
        - output: a scalar, or with ``reduction="none"`` the shape of the input.

    Raises:
        TypeError, ValueError: what is no tensor; an argument out of range; shapes that do not fit.
    """

    weight: Tensor | None

    def __init__(
        self, theta: Sequence[float] = (), *, weight: Tensor | None = None, reduction: str = "mean", **options: Any
    ) -> None:
        super().__init__(theta, reduction)
        if options:
            raise TypeError(f"{self.name} has no option {next(iter(options))!r}.")
        self.register_buffer("weight", weight)

    def values(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each output."""
        raise NotImplementedError

    @torch.jit.unused
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of the outputs ``input`` against ``target``."""
        for name, value in (("input", input), ("target", target)):
            if not isinstance(value, Tensor):
                raise TypeError(f"`{name}` must be a tensor, got {value!r}.")
        if input.dtype.itemsize < 4 or not input.is_floating_point():
            input = input.float()
        values = self.weighted(input, target.to(input.dtype))
        if self.reduction == "mean":
            return self.mean(values)
        return values.sum() if self.reduction == "sum" else values

    def weighted(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each output times its weight."""
        values = self.values(input, target)
        return values if self.weight is None else values * self.weight

    def mean(self, values: Tensor) -> Tensor:
        """The mean of weighted values."""
        return values.mean()

    def parameters_of(self, input: Tensor) -> tuple[Tensor, ...]:
        """The parameters one by one, in the type of the input."""
        return self.theta.to(input.dtype).unbind()

    def extra_repr(self) -> str:
        """The formula and the reduction."""
        return self.formula if self.reduction == "mean" else f"{self.formula}, reduction={self.reduction!r}"


class BinaryLoss(PointwiseLoss, abstract=True):
    r"""Base of the losses of logits ``z`` and targets ``y`` in [0, 1], with :math:`h = \sigma(z)`.

    Its instances take the place of :class:`torch.nn.BCEWithLogitsLoss`, for one output or several labels.

    Args:
        pos_weight: weight of positive targets, broadcast against the outputs: a value counts ``1 + (pos_weight - 1) y``
            times, which for hard targets is torch's rule.
        probabilities: whether the input is ``h``, as for :class:`torch.nn.BCELoss`.
        options: those of :class:`PointwiseLoss`.
    """

    kind = "binary"
    inherited = ("weight", "pos_weight", "reduction")
    pos_weight: Tensor | None

    def __init__(
        self,
        theta: Sequence[float] = (),
        *,
        pos_weight: Tensor | None = None,
        probabilities: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(theta, **options)
        self.probabilities = probabilities
        self.register_buffer("pos_weight", pos_weight)

    def weighted(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each output times its weights."""
        if input.shape != target.shape:
            raise ValueError(
                f"{self.name}: the target must have the shape of the logits, {tuple(input.shape)}, got "
                f"{tuple(target.shape)}."
            )
        if self.probabilities:
            input = torch.logit(input, eps=torch.finfo(input.dtype).eps)
        values = super().weighted(input, target)
        return values if self.pos_weight is None else values * (1 + (self.pos_weight - 1) * target)


class RegressionLoss(PointwiseLoss, abstract=True):
    """Base of the losses of a residual ``x``, output minus target; symmetric, and never uphill from 0.

    Its instances take the place of :class:`torch.nn.MSELoss` and its kin. Shapes broadcast as they do there.
    """

    kind = "regression"

    def mean(self, values: Tensor) -> Tensor:
        """The weighted mean, as in torch."""
        return values.mean() if self.weight is None else values.sum() / self.weight.expand_as(values).sum()

    def residual_values(self, x: Tensor) -> Tensor:
        """The loss of each residual."""
        raise NotImplementedError

    def values(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of each output."""
        return self.residual_values(input - target)
