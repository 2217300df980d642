"""Base of the losses that replace ``nn.CrossEntropyLoss``: shapes, weights, smoothing, reductions, checkpoints."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tglo_lightning.arguments import integer, number, tensor_of
from tglo_lightning.losses.functional import inspectable, wrapped
from tglo_lightning.losses.loss import FamilyLoss
from tglo_lightning.wording import counted

# Logits beyond which a loss is computed in parts, and logits of a part
LARGE, PART = 2**24, 2**18


class ClassificationLoss(FamilyLoss, abstract=True):
    """Base of the losses of logits and class labels.

    Its instances take the place of :class:`torch.nn.CrossEntropyLoss`: the same arguments, inputs and reductions. A
    subclass is a *family*: it says by :meth:`terms` what each class adds to the loss of a sample, and names its
    parameters by :attr:`axes`. Most families are :class:`~tglo_lightning.losses.SeparableLoss`.

    Args:
        theta: parameters, one for each axis.
        weight: one weight a class, shape ``(n,)``. With class-index targets a sample counts with the weight of its
            class, and the mean is the weighted mean. With probability targets the weight of a class multiplies what
            its label adds to the loss (for cross-entropy: torch's rule), and the mean is over samples.
        ignore_index: a class index whose samples count for nothing.
        label_smoothing: ``alpha`` in [0, 1]; the labels become ``(1 - alpha) y + alpha / n``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shape:
        - logits: ``(n,)``, ``(N, n)`` or ``(N, n, d1, ...)``. Computed in float32 or better, also under autocast. A
          class that is masked, by a logit of minus infinity, and has no label adds nothing where its term would be
          infinite.
        - target: class indices, ``()``, ``(N,)`` or ``(N, d1, ...)``; or class probabilities, shaped like the logits.
        - output: a scalar, or with ``reduction="none"`` the shape of class-index targets.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range; in ``forward``, shapes that do not fit, or
            (on the CPU) a target out of range. On an accelerator an index out of range fails in the kernel, as it does
            for torch's own losses.
    """

    kind = "classes"
    inherited = ("weight", "ignore_index", "reduction")
    weight: Tensor | None

    def __init__(
        self,
        theta: Tensor | Sequence[float] = (),
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(theta, reduction)
        if weight is not None:
            weight = tensor_of("weight", weight)
            if weight.dim() != 1 or not weight.is_floating_point():
                raise ValueError(
                    f"`weight` must be a floating 1-D tensor, one value a class, got {weight.dtype} of shape "
                    f"{tuple(weight.shape)}."
                )
        self.ignore_index = integer("ignore_index", ignore_index)
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0, most=1)
        self.register_buffer("weight", weight)

    @property
    def class_weights(self) -> Tensor | None:
        """Weight of each class, shape ``(n,)``; here the argument ``weight``."""
        return self.weight

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """What each class adds to the loss of a sample; logits, labels after smoothing and result: ``(N, n, ...)``."""
        raise NotImplementedError

    @torch.jit.unused
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of the logits ``input`` against ``target``; see the class for shapes and errors."""
        logits, weight = input, self.class_weights
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor):
            wrong = ("input", logits) if not isinstance(logits, Tensor) else ("target", target)
            raise TypeError(f"`{wrong[0]}` must be a tensor, got {wrong[1]!r}.")
        hard = self._check(logits, target, weight)
        batched = logits.dim() > 1
        if not batched:
            logits, target = logits.unsqueeze(0), target.unsqueeze(0)
        if logits.numel() > LARGE and not torch.compiler.is_compiling() and not wrapped(logits):
            losses, counts = self._in_parts(logits, target, weight, hard)
        else:
            losses, counts = self._of_samples(logits, target, weight, hard)
        if self.reduction == "mean":
            return losses.mean() if counts is None else losses.sum() / counts.sum()
        if self.reduction == "sum":
            return losses.sum()
        return losses if batched else losses.squeeze(0)

    def _of_samples(
        self, logits: Tensor, target: Tensor, weight: Tensor | None, hard: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Losses, already weighted, and what each counts in the mean if not one."""
        if logits.dtype.itemsize < 4:  # float64 stays, halves are lifted: autocast does not reach past this line
            logits = logits.float()
        if hard:
            return self._forward_indices(logits, target.long(), weight)
        return self._rows(logits, target.to(logits.dtype), weight), None

    def _in_parts(
        self, logits: Tensor, target: Tensor, weight: Tensor | None, hard: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`_of_samples`, in parts that are computed again for gradients: less memory, a third more time."""
        dim = max((d for d in range(logits.dim()) if d != 1), key=lambda d: logits.shape[d])
        size = max(1, PART * logits.shape[dim] // logits.numel())
        parts = [
            checkpoint(self._of_samples, *pair, weight, hard, use_reentrant=False, preserve_rng_state=False)
            for pair in zip(logits.split(size, dim), target.split(size, max(dim - 1, 0) if hard else dim), strict=True)
        ]
        losses = torch.cat([part for part, _ in parts], max(dim - 1, 0))
        if all(counts is None for _, counts in parts):
            return losses, None
        counts = [torch.ones_like(part) if own is None else own for part, own in parts]
        return losses, torch.cat(counts, max(dim - 1, 0))

    def _forward_indices(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        ignored = None
        if self._may_ignore(target, logits.shape[1]):
            ignored = target == self.ignore_index
            target = target.masked_fill(ignored, 0)
        counts = None if weight is None else weight.to(logits.dtype)[target]
        if counts is None:
            losses = self.indexed(logits, target)
        elif not self.smooths:
            losses = self.indexed(logits, target) * counts
        else:
            # Smoothing spreads the label over classes of different weights
            losses = self._rows(logits, _one_hot(logits, target), weight)
        if ignored is not None:
            counts = torch.ones_like(losses) if counts is None else counts
            losses, counts = losses.masked_fill(ignored, 0.0), counts.masked_fill(ignored, 0.0)
        return losses, counts

    def _rows(self, logits: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        labels = self._smoothed(y) if self.smooths else y
        masked = (logits == -torch.inf) & (y == 0)
        terms = without_masked(self.terms(logits, labels), masked)
        if weight is not None:
            # The part that the label brings is weighted class by class, the rest by the weight of the sample; with a
            # hard label both make the weight of its class.
            weight = weight.to(logits.dtype).view(1, -1, *[1] * (logits.dim() - 2))
            unlabelled = without_masked(self.terms(logits, torch.zeros_like(labels)), masked)
            terms = weight * (terms - unlabelled) + (weight * labels).sum(dim=1, keepdim=True) * unlabelled
        return terms.sum(dim=1)

    def indexed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape ``(N, ...)`` for logits ``(N, n, ...)`` and class indices, unweighted."""
        return self._rows(logits, _one_hot(logits, target), None)

    @property
    def smooths(self) -> bool:
        """Whether the labels are smoothed."""
        return self.label_smoothing > 0.0

    def alpha(self, dtype: torch.dtype) -> float | Tensor:
        """The smoothing of the labels: a number, or a scalar tensor of type ``dtype``."""
        return self.label_smoothing

    def label_values(self, num_classes: int, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
        """The label of the true class and of any other, after smoothing: numbers, or scalar tensors."""
        alpha = self.alpha(dtype)
        return 1.0 - alpha + alpha / num_classes, alpha / num_classes

    def _smoothed(self, y: Tensor) -> Tensor:
        alpha = self.alpha(y.dtype)
        return (1.0 - alpha) * y + alpha / y.shape[1]

    def _check(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> bool:
        """Whether the targets are class indices; raises where logits, targets and weights do not fit."""
        shape = logits.shape
        if not shape or not logits.is_floating_point():
            raise ValueError(
                f"{self.name}: logits must be a floating tensor (N, n, ...), got {logits.dtype} of shape "
                f"{tuple(shape)}."
            )
        axis = 1 if len(shape) > 1 else 0
        if weight is not None and weight.shape[0] != shape[axis]:
            raise ValueError(
                f"{self.name}: `weight` has {counted(weight.shape[0], 'value')}, the logits have "
                f"{counted(shape[axis], 'class')}."
            )
        floating = target.is_floating_point()
        if target.shape != (shape if floating else shape[:axis] + shape[axis + 1 :]) or target.dtype == torch.bool:
            raise ValueError(
                f"{self.name}: for logits of shape {tuple(shape)} the target must hold class indices (integers) of "
                f"shape {tuple(shape[:axis] + shape[axis + 1 :])} or class probabilities (floating) of shape "
                f"{tuple(shape)}, got {target.dtype} of shape {tuple(target.shape)}."
            )
        if floating and inspectable(target) and target.numel():
            low, high = map(float, target.detach().aminmax())
            if not (low >= -1e-6 and high <= 1 + 1e-6):
                raise ValueError(
                    f"{self.name}: class probabilities must lie in [0, 1], got values from {low} to {high}."
                )
        return not floating

    def _may_ignore(self, target: Tensor, num_classes: int) -> bool:
        """Whether some targets are, or may be, ``ignore_index``; raises for a class index out of range."""
        if not inspectable(target):
            return True
        if target.numel() == 0:
            return False
        low, high = map(int, target.aminmax())
        if low >= 0 and high < num_classes and not low <= self.ignore_index <= high:
            return False
        used = target[target != self.ignore_index]
        if used.numel() and not 0 <= int(used.min()) <= int(used.max()) < num_classes:
            raise ValueError(
                f"{self.name}: class indices must lie in [0, {num_classes - 1}] (or be ignore_index="
                f"{self.ignore_index}), got values from {int(used.min())} to {int(used.max())}."
            )
        return True

    def extra_repr(self) -> str:
        """The formula and the arguments that are not the defaults."""
        parts = [self.formula]
        if self.weight is not None:
            parts.append(f"weight={self.weight.tolist()}")
        defaults: dict[str, Any] = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": "mean"}
        parts += [f"{key}={getattr(self, key)!r}" for key, value in defaults.items() if getattr(self, key) != value]
        return ", ".join(parts)


def labelled(y: Tensor | float, values: Tensor) -> Tensor:
    """``y * values``, zero where the label is zero, even if the value there is infinite."""
    y = torch.as_tensor(y, dtype=values.dtype, device=values.device)
    return torch.where(y == 0, torch.zeros_like(values), y * values)


def without_masked(terms: Tensor, masked: Tensor) -> Tensor:
    """``terms`` with zero in place of what is not finite at masked classes."""
    return torch.where(masked & ~terms.isfinite(), torch.zeros_like(terms), terms)


def _one_hot(logits: Tensor, target: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter(1, target.unsqueeze(1), 1.0)
