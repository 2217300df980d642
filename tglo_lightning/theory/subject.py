"""What the theory needs to know of a loss, whatever form it comes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tglo_lightning.arguments import integer, tensor_of
from tglo_lightning.losses import SeparableLoss, TaylorGLOLoss, as_loss
from tglo_lightning.losses.functional import inspectable, taylor_gamma, theta_tensor

LossLike: TypeAlias = nn.Module | str | Tensor | Sequence[float]
"""A separable loss, ``nn.CrossEntropyLoss``, the name of such a loss, or a bare ``theta`` of shape ``(..., P)``."""


@dataclass(frozen=True)
class Subject:
    """A loss as the theory sees it.

    Attributes:
        gamma: ``(y, h) -> df/dh``, elementwise.
        theta: parameters of shape ``(..., P)`` for a TaylorGLO loss, else ``None``: the formula path against autograd.
        label_smoothing: ``alpha``, applied to the labels before ``gamma`` sees them.
        weight: weight of each class, shape ``(n,)``, or ``None``.
        ignore_index: class index of samples that the loss leaves out, or ``None``.
        n: number of classes; 0 if it is not said.
    """

    gamma: Callable[[Tensor, Tensor], Tensor]
    theta: Tensor | None = None
    label_smoothing: float = 0.0
    weight: Tensor | None = None
    ignore_index: int | None = None
    n: int = 0

    @property
    def labels(self) -> tuple[float, float]:
        """Label of the true class and of every other class, after label smoothing."""
        off = self.label_smoothing / self.n
        return 1.0 - self.label_smoothing + off, off


def subject_for(loss: LossLike, num_classes: int) -> Subject:
    """Read a loss for so many classes, at least 2; for errors see :func:`subject`."""
    return subject(loss, integer("num_classes", num_classes, 2))


def subject(loss: LossLike, n: int = 0) -> Subject:
    """Read a loss, for ``n`` classes if that is said.

    Raises:
        TypeError: not a loss of the package, or one that is not separable.
        ValueError: unknown name, or a ``theta`` of a wrong length or with a value that is not finite.
    """
    if isinstance(loss, nn.Module | str):
        module = as_loss(loss)
        if not isinstance(module, SeparableLoss):
            raise TypeError(
                f"{module.name} is not separable: it is no sum -sum_k f(y_k, h_k), and the theory explains only those."
            )
        module = module.for_classes(n) if n else module
        theta = module.theta if isinstance(module, TaylorGLOLoss) else None
        gamma = module.gamma if theta is None else _taylor(theta)
        return Subject(gamma, theta, module.label_smoothing, module.class_weights, module.ignore_index, n)
    theta = theta_tensor(loss)
    return Subject(_taylor(theta), theta, n=n)


def _taylor(theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda y, h: taylor_gamma(theta.to(h.device), y, h)


def theta_of(loss: LossLike) -> Tensor:
    """Parameters of a TaylorGLO loss, shape ``(..., P)``.

    Raises:
        TypeError: the loss has no ``theta``.
    """
    theta = subject(loss).theta
    if theta is None:
        raise TypeError(f"Expected a TaylorGLO loss or its `theta`, got {loss!r}, which has no `theta`.")
    return theta


def floating(**values: Tensor | Sequence[float] | float) -> list[Tensor]:
    """Tensors of one floating type, float32 or better, on one device; numbers and sequences alone become float64.

    Raises:
        TypeError: a value that is not made of numbers, by its name.
    """
    given = [value for value in values.values() if isinstance(value, Tensor)]
    dtypes = [tensor.dtype for tensor in given if tensor.is_floating_point()]
    dtype = torch.float32 if dtypes else torch.float64
    for other in dtypes:
        dtype = torch.promote_types(dtype, other)
    device = given[0].device if given else None
    return [tensor_of(name, value, dtype, device) for name, value in values.items()]


def value_of(flag: Tensor) -> Tensor | bool:
    """A single flag as a ``bool``; a batch, or a flag inside a ``torch.func`` transform, as the tensor it is."""
    return bool(flag) if flag.dim() == 0 and inspectable(flag.cpu()) else flag
