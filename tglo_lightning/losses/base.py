"""The protocol of the family: a loss is a sum over classes of a scalar function of label and prediction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tglo_lightning.losses.functional import inspectable

__all__ = ["SeparableLoss"]

REDUCTIONS = ("mean", "sum", "none")


class SeparableLoss(nn.Module):
    r"""Base of the losses :math:`L = -\sum_k f(y_k, h_k)` with :math:`h = \mathrm{softmax}(z)`.

    Its instances take the place of :class:`torch.nn.CrossEntropyLoss`: the same arguments, inputs and reductions. A
    subclass says what ``f`` is, by :meth:`elementwise`; its derivative :meth:`gamma` is found by automatic
    differentiation unless the subclass knows better.

    Args:
        weight: one weight a class, shape ``(n,)``. With class-index targets a sample counts with the weight of its
            class, and the mean is the weighted mean. With probability targets the weight of a class multiplies what
            its label adds to the loss (for cross-entropy: torch's rule), and the mean is over samples.
        ignore_index: a class index whose samples count for nothing.
        label_smoothing: ``alpha`` in [0, 1]; the labels become ``(1 - alpha) y + alpha / n``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shape:
        - logits: ``(n,)``, ``(N, n)`` or ``(N, n, d1, ...)``. Computed in float32 or better, also under autocast.
        - target: class indices, ``()``, ``(N,)`` or ``(N, d1, ...)``; or class probabilities of the shape of the logits.
        - output: a scalar, or with ``reduction="none"`` the shape of class-index targets.

    Raises:
        ValueError: an argument out of range; in ``forward``, shapes that do not fit, or (on the CPU) a target out of
            range. On an accelerator an index out of range fails in the kernel, as it does for torch's own losses.
    """

    name: str = ""
    weight: Tensor | None

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be one of {REDUCTIONS}, got {reduction!r}.")
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"`label_smoothing` must be in [0, 1], got {label_smoothing!r}.")
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
            raise TypeError(f"`ignore_index` must be an int, got {ignore_index!r}.")
        if weight is not None:
            weight = torch.as_tensor(weight)
            if weight.dim() != 1 or not weight.is_floating_point():
                raise ValueError(
                    f"`weight` must be a floating 1-D tensor, one value a class, got {weight.dtype} of shape "
                    f"{tuple(weight.shape)}."
                )
        self.ignore_index = ignore_index
        self.label_smoothing = float(label_smoothing)
        self.reduction = reduction
        self.register_buffer("weight", weight)

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        raise NotImplementedError

    def elementwise(self, y: Tensor | float, h: Tensor, log_h: Tensor) -> Tensor:
        """``f(y, h)`` where the logarithm of ``h`` is already known, which stays exact where ``h`` underflows."""
        raise NotImplementedError

    def f(self, y: Tensor | float, h: Tensor) -> Tensor:
        """The scalar function behind the loss, elementwise.

        Args:
            y: labels, any shape that broadcasts with ``h``, or one number.
            h: predictions in [0, 1].
        """
        return self.elementwise(y, h, torch.log(h))

    def gamma(self, y: Tensor | float, h: Tensor) -> Tensor:
        """``df/dh``, elementwise: all that is specific to the loss in the learning rule (arXiv 2010.00788)."""
        y, h = torch.broadcast_tensors(torch.as_tensor(y, dtype=h.dtype, device=h.device), h)
        return torch.func.grad(lambda prediction: self.f(y, prediction).sum())(h)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of ``logits`` against ``target``; see the class for shapes and errors."""
        hard = self._check(logits, target)
        batched = logits.dim() > 1
        # float64 stays, everything below float32 is lifted: autocast does not reach past this line
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not batched:
            logits, target = logits.unsqueeze(0), target.unsqueeze(0)
        if hard:
            losses, weights = self._forward_indices(logits, target.long())
        else:
            losses, weights = self._forward_probabilities(logits, target.to(logits.dtype)), None
        if self.reduction == "none":
            return losses if batched else losses.squeeze(0)
        if self.reduction == "sum":
            return losses.sum()
        return losses.mean() if weights is None else losses.sum() / weights.sum()

    # Per-sample losses, shape (N, d1, ...)

    def _forward_indices(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Losses, already weighted, and the weights if they are not all one."""
        ignored = None
        if not self._none_ignored(target, logits.shape[1]):
            ignored = target == self.ignore_index
            target = target.masked_fill(ignored, 0)
        if self.weight is not None and self.label_smoothing > 0.0:
            # Smoothing spreads the label over classes of different weights
            off = self.label_smoothing / logits.shape[1]
            one_hot = torch.zeros_like(logits).scatter(1, target.unsqueeze(1), 1.0 - self.label_smoothing)
            losses = self._weighted_sum(logits, one_hot + off)
            weights = self.weight.to(logits.dtype)[target]
        else:
            losses = self.indexed(logits, target)
            weights = None
            if self.weight is not None:
                weights = self.weight.to(logits.dtype)[target]
                losses = losses * weights
        if ignored is not None:
            weights = torch.ones_like(losses) if weights is None else weights
            losses, weights = losses.masked_fill(ignored, 0.0), weights.masked_fill(ignored, 0.0)
        return losses, weights

    def _forward_probabilities(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.label_smoothing > 0.0:
            target = (1.0 - self.label_smoothing) * target + self.label_smoothing / logits.shape[1]
        return self._weighted_sum(logits, target)

    def _weighted_sum(self, logits: Tensor, y: Tensor) -> Tensor:
        log_h = logits.log_softmax(dim=1)
        h = log_h.exp()
        terms = self.elementwise(y, h, log_h)
        if self.weight is not None:
            # The part of f that the label brings is weighted class by class, the rest by the weight of the sample;
            # with a hard label both make the weight of its class.
            weight = self.weight.to(logits.dtype).view(1, -1, *[1] * (logits.dim() - 2))
            unlabelled = self.elementwise(0.0, h, log_h)
            terms = weight * (terms - unlabelled) + (weight * y).sum(dim=1, keepdim=True) * unlabelled
        return -terms.sum(dim=1)

    def label_values(self, num_classes: int) -> tuple[float, float]:
        """The label of the true class and of any other, after smoothing."""
        off = self.label_smoothing / num_classes
        return 1.0 - self.label_smoothing + off, off

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for logits ``(N, n, ...)`` and class indices, unweighted, without one-hot."""
        on, off = self.label_values(logits.shape[1])
        log_h = logits.log_softmax(dim=1)
        rest = self.elementwise(off, log_h.exp(), log_h).sum(dim=1)
        log_hit = log_h.gather(1, target.unsqueeze(1)).squeeze(1)
        hit = log_hit.exp()
        return -(rest + self.elementwise(on, hit, log_hit) - self.elementwise(off, hit, log_hit))

    # Validation

    def _check(self, logits: Tensor, target: Tensor) -> bool:
        """Whether the targets are class indices; raises where logits and targets do not fit."""
        if logits.dim() == 0 or not logits.is_floating_point():
            raise ValueError(
                f"{self.name}: logits must be a floating tensor (N, n, ...), got {logits.dtype} of shape "
                f"{tuple(logits.shape)}."
            )
        axis = min(logits.dim() - 1, 1)
        num_classes = logits.shape[axis]
        if self.weight is not None and self.weight.shape[0] != num_classes:
            raise ValueError(
                f"{self.name}: `weight` has {self.weight.shape[0]} values, the logits have {num_classes} classes."
            )
        indices = (*logits.shape[:axis], *logits.shape[axis + 1 :])
        if target.shape == logits.shape and target.is_floating_point():
            if inspectable(target) and target.numel():
                low, high = (bound.item() for bound in target.detach().aminmax())
                if not (low >= -1e-6 and high <= 1 + 1e-6):
                    raise ValueError(
                        f"{self.name}: class probabilities must lie in [0, 1], got values from {low} to {high}."
                    )
            return False
        if target.shape != indices or target.is_floating_point() or target.dtype == torch.bool:
            raise ValueError(
                f"{self.name}: for logits of shape {tuple(logits.shape)} the target must hold class indices (integers) "
                f"of shape {indices} or class probabilities (floating) of shape {tuple(logits.shape)}, got "
                f"{target.dtype} of shape {tuple(target.shape)}."
            )
        return True

    def _none_ignored(self, target: Tensor, num_classes: int) -> bool:
        """Whether it is known that no target is ignored; raises for a class index out of range."""
        if not inspectable(target):
            return False
        if target.numel() == 0:
            return True
        low, high = (int(bound) for bound in target.aminmax())
        if 0 <= low and high < num_classes and not low <= self.ignore_index <= high:
            return True
        counted = target[target != self.ignore_index]
        if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < num_classes:
            raise ValueError(
                f"{self.name}: class indices must lie in [0, {num_classes - 1}] (or be ignore_index="
                f"{self.ignore_index}), got values from {int(counted.min())} to {int(counted.max())}."
            )
        return False

    def extra_repr(self) -> str:
        """``f(y, h)`` and the arguments that are not the defaults."""
        parts = [f"f(y, h) = {self.formula}"]
        if self.weight is not None:
            parts.append(f"weight={self.weight.tolist()}")
        defaults: dict[str, Any] = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": "mean"}
        parts += [f"{key}={getattr(self, key)!r}" for key, value in defaults.items() if getattr(self, key) != value]
        return ", ".join(parts)
