"""Base of all losses of the package: a family, its parameters, and how they travel in checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from tglo_lightning.arguments import choice, tensor_of
from tglo_lightning.losses.family import FAMILIES, Axis
from tglo_lightning.wording import counted

REDUCTIONS = ("mean", "sum", "none")


class FamilyLoss(nn.Module):
    """Base of the losses of an output and a target.

    The parameters are the buffer ``theta``, so they travel in ``state_dict``, move with ``.to()``, and a population of
    one family is one stacked buffer under :func:`torch.func.vmap`.

    Attributes:
        family: name of the family in results, checkpoints and configs; by default the path of the class. A base class
            that is no family is defined with ``abstract=True``, and has the name ``""``.
        kind: kind of target: ``"classes"``, ``"binary"`` or ``"regression"``.
        axes: parameters of the family, in the order of ``theta``.
        text: the formula in plain text, with the names of parameters in braces.
        python: the formula in Python, likewise; see :attr:`expression`.
        inherited: options that it takes over from the loss that it replaces.
        theta: parameters, float64 of shape ``(P,)``. Like every buffer it stays in float32 or better when the module is
            cast to less.

    Args:
        theta: parameters, one for each axis.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    family: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    axes: ClassVar[tuple[Axis, ...]] = ()
    text: ClassVar[str] = ""
    python: ClassVar[str] = ""
    inherited: ClassVar[tuple[str, ...]] = ("weight", "reduction")
    theta: Tensor

    # TorchScript compiles a network without its loss
    __jit_ignored_attributes__: ClassVar[list[str]] = [
        *("family", "kind", "axes", "text", "python", "inherited", "theta", "weight", "pos_weight")
    ]
    __jit_unused_properties__: ClassVar[list[str]] = []

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__jit_unused_properties__ = [
            name for kind in cls.__mro__ for name, value in vars(kind).items() if isinstance(value, property)
        ]
        cls.family = "" if abstract else vars(cls).get("family", f"{cls.__module__}.{cls.__qualname__}")
        if not abstract:
            FAMILIES[cls.family] = cls

    def __init__(self, theta: Tensor | Sequence[float] = (), reduction: str = "mean") -> None:
        super().__init__()
        if self.axes:
            theta = [axis.check(value) for axis, value in zip(self.axes, theta, strict=True)]
        self.reduction = choice("reduction", reduction, REDUCTIONS)
        self.register_buffer("theta", tensor_of("theta", theta, torch.float64).detach().clone())

    @classmethod
    def of(cls, theta: Sequence[float], **options: Any) -> Self:
        """Build the member of the family with parameters ``theta``, one for each axis.

        ``options`` are the other arguments of the constructor.

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
        """The loss in plain text, of a classification loss what :attr:`expression` is."""
        return self._filled("text", ".4g")

    @property
    def expression(self) -> str:
        """The loss as a Python expression, which :func:`~tglo_lightning.search.export_loss` writes.

        It may refer to ``torch``, ``math`` and ``tiny``, the smallest number of the type. Of a loss of classes it is
        what each class adds, with its sign changed, by tensors of shape ``(N, n, ...)``: the logits ``z``, ``log_h``
        and ``h``, their log-softmax and softmax, the labels ``y``, and the number ``n``. Of a binary loss it is the
        value of a logit ``z`` with the target ``y``, by ``h`` and ``m = 1 - h``, ``log_h`` and ``log_m``. Of a
        regression loss it is the value of a residual ``x``.

        Raises:
            NotImplementedError: the family does not say.
        """
        return self._filled("python", "")

    def _filled(self, name: str, digits: str) -> str:
        """The attribute ``name`` with the parameters put in."""
        if not getattr(self, name):
            raise NotImplementedError(f"{self.name} has no `{name}`.")
        values = zip(self.axes, self.theta.tolist(), strict=False)  # priors may follow the parameters
        return str(getattr(self, name).format(**{axis.name: format(value, digits) for axis, value in values}))

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
