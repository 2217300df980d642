"""Base of the losses that replace ``nn.CrossEntropyLoss``: shapes, weights, smoothing, reductions, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from tglo_lightning.arguments import choice, integer, number, tensor_of
from tglo_lightning.losses.family import FAMILIES, Axis
from tglo_lightning.losses.functional import inspectable
from tglo_lightning.wording import counted

__all__ = ["ClassificationLoss", "labelled", "without_masked"]

REDUCTIONS = ("mean", "sum", "none")


class ClassificationLoss(nn.Module):
    """Base of the losses of logits and class labels.

    Its instances take the place of :class:`torch.nn.CrossEntropyLoss`: the same arguments, inputs and reductions. A
    subclass is a *family*: it says by :meth:`terms` what each class adds to the loss of a sample, and names its
    parameters by :attr:`axes`. Most families are :class:`~tglo_lightning.losses.SeparableLoss`, which know more of
    themselves. The parameters are the buffer ``theta``, so they travel in ``state_dict``, and a population of one
    family is one stacked buffer under :func:`torch.func.vmap`.

    Attributes:
        family: name of the family in results, checkpoints and configs; by default the path of the class. A base class
            that is no family has the name ``""``.
        axes: parameters of the family, in the order of ``theta``.
        theta: parameters, float64 of shape ``(P,)``. Like every buffer it stays in float32 or better when the module is
            cast to less.

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

    family: ClassVar[str] = ""
    axes: ClassVar[tuple[Axis, ...]] = ()
    theta: Tensor
    weight: Tensor | None

    # TorchScript compiles a network without its loss
    __jit_ignored_attributes__: ClassVar[list[str]] = ["family", "axes", "theta", "weight", "priors"]
    __jit_unused_properties__: ClassVar[list[str]] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__jit_unused_properties__ = [
            name for kind in cls.__mro__ for name, value in vars(kind).items() if isinstance(value, property)
        ]
        cls.family = vars(cls).get("family", f"{cls.__module__}.{cls.__qualname__}")
        if cls.family:
            FAMILIES[cls.family] = cls

    def __init__(
        self,
        theta: Tensor | Sequence[float] = (),
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if self.axes:
            theta = [axis.check(value) for axis, value in zip(self.axes, theta, strict=True)]
        if weight is not None:
            weight = tensor_of("weight", weight)
            if weight.dim() != 1 or not weight.is_floating_point():
                raise ValueError(
                    f"`weight` must be a floating 1-D tensor, one value a class, got {weight.dtype} of shape "
                    f"{tuple(weight.shape)}."
                )
        self.ignore_index = integer("ignore_index", ignore_index)
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0, most=1)
        self.reduction = choice("reduction", reduction, REDUCTIONS)
        self.register_buffer("theta", tensor_of("theta", theta, torch.float64).detach().clone())
        self.register_buffer("weight", weight)

    @classmethod
    def of(cls, theta: Sequence[float], **options: Any) -> Self:
        """Build the member of the family with parameters ``theta``.

        Args:
            theta: parameters, one for each axis.
            options: other arguments of the constructor: ``weight``, ``ignore_index``, ``reduction``, and what a family
                needs besides, such as ``priors``.

        Raises:
            ValueError: another number of parameters.
        """
        values = theta.tolist() if isinstance(theta, Tensor) else theta
        if len(values) != len(cls.axes):
            names = ", ".join(axis.name for axis in cls.axes) or "none"
            raise ValueError(
                f"{cls.__name__}: `theta` must have {counted(len(cls.axes), 'value')} ({names}), got {values}."
            )
        return cls(*values, **options)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """Name of the class, for messages."""
        return type(self).__name__

    @property
    def formula(self) -> str:
        """The loss in plain text."""
        raise NotImplementedError

    @property
    def expression(self) -> str:
        """What each class adds to the loss, with its sign changed, as a Python expression.

        Of tensors of shape ``(N, n, ...)``: the logits ``z``, ``log_h`` and ``h``, their log-softmax and softmax, the
        labels ``y``, and of ``n``, ``torch`` and ``math``. :func:`~tglo_lightning.search.export_loss` writes it.
        """
        raise NotImplementedError

    @property
    def class_weights(self) -> Tensor | None:
        """Weight of each class, shape ``(n,)``; here the argument ``weight``."""
        return self.weight

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """What each class adds to the loss of a sample.

        Args:
            logits: shape ``(N, n, ...)``.
            y: labels after smoothing, shaped like the logits.

        Returns:
            Tensor of shape ``(N, n, ...)``, whose sum over the classes is the loss.
        """
        raise NotImplementedError

    @torch.jit.unused
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of the logits ``input`` against ``target``; see the class for shapes and errors."""
        logits, weight = input, self.class_weights
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor):
            wrong = ("input", logits) if not isinstance(logits, Tensor) else ("target", target)
            raise TypeError(f"`{wrong[0]}` must be a tensor, got {wrong[1]!r}.")
        hard = self._check(logits, target, weight)
        if logits.dtype.itemsize < 4:  # float64 stays, halves are lifted: autocast does not reach past this line
            logits = logits.float()
        batched = logits.dim() > 1
        if not batched:
            logits, target = logits.unsqueeze(0), target.unsqueeze(0)
        if hard:
            losses, counts = self._forward_indices(logits, target.long(), weight)
        else:
            losses, counts = self._rows(logits, target.to(logits.dtype), weight), None
        if self.reduction == "mean":
            return losses.mean() if counts is None else losses.sum() / counts.sum()
        if self.reduction == "sum":
            return losses.sum()
        return losses if batched else losses.squeeze(0)

    # Per-sample losses, shape (N, d1, ...)

    def _forward_indices(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Losses, already weighted, and what each counts in the mean if not one."""
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

    # Validation

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

    # Checkpoints

    def get_extra_state(self) -> Tensor:
        """Return the family's name as bytes: ``theta`` alone does not tell what it parameterises."""
        return torch.tensor(list(self.family.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Accept the name; :func:`~tglo_lightning.module.restore_loss` has looked at it before."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights that were saved with another loss in this place load strictly, and this loss stays as it is
        if f"{prefix}theta" in state_dict:
            for name, buffer in list(self._buffers.items()):
                saved = state_dict.get(prefix + name)
                if buffer is None and saved is not None:  # restored by family and parameters alone
                    setattr(self, name, torch.empty_like(saved))
        own = {**dict(self.named_buffers()), "_extra_state": self.get_extra_state()}
        added = {prefix + name: value for name, value in own.items() if prefix + name not in state_dict}
        state_dict.update(added)
        try:
            super()._load_from_state_dict(state_dict, prefix, *args)
        finally:
            for key in added:
                del state_dict[key]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        if fn(torch.empty(0)).device.type == "mps":  # which holds no float64
            for name, buffer in self.named_buffers():
                setattr(self, name, buffer.float())
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            if getattr(self, name).dtype.itemsize < 4:
                # a network in half precision must not change what its loss is
                setattr(self, name, buffer.to(getattr(self, name).device))
        return self

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
