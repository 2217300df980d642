"""What to train with, as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tglo_lightning.arguments import entries, number
from tglo_lightning.losses import FamilyLoss, family, loss_like
from tglo_lightning.search.plain import Plain


@dataclass(frozen=True)
class LossSpec(Plain):
    """One loss as data: a family and its parameters.

    Attributes:
        family: name of the family, see :data:`tglo_lightning.losses.FAMILIES`.
        theta: parameters of the loss, in the order of the family.

    Raises:
        TypeError, ValueError: a name that is no string, or a parameter that is no finite number.

    >>> LossSpec("smoothing", (0.1,)).formula
    'y log(h), labels smoothed by 0.1'
    """

    family: str
    theta: tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.family, str):
            raise TypeError(f"`family` must be the name of a family of losses, got {self.family!r}.")
        theta = entries("theta", self.theta, "a sequence of numbers")
        object.__setattr__(self, "theta", tuple(number("theta", value) for value in theta))

    def build(self, original: Any = None) -> FamilyLoss:
        """Build the loss with the class weights, ``ignore_index`` and reduction of ``original``.

        Raises:
            ValueError: an unknown family, or parameters that it rejects.
        """
        return loss_like(original, self.family, self.theta)

    @property
    def formula(self) -> str:
        """``f(y, h)`` in plain text."""
        return family(self.family).of(self.theta).formula


@dataclass(frozen=True)
class Criterion(Plain):
    """What a network is trained with, as plain data: a loss for each place in the module, and a step.

    Attributes:
        losses: one loss for each place in the module that is searched for; empty for the module's own losses.
        step: factor on the learning rates of the module's optimizers, above 0. Schedules are scaled with it.

    Raises:
        TypeError, ValueError: losses that are no :class:`LossSpec`; a step that is not a finite number above 0.

    >>> Criterion.original(step=0.3)
    Criterion(losses=(), step=0.3)
    >>> criterion = Criterion.of("taylorglo", [0, 0, 0, -1.0, 0, 2.0, 0, 0])
    >>> criterion.formula
    '-1 h^2 + 2 y h'
    >>> Criterion.from_dict(criterion.to_dict()) == criterion
    True
    """

    losses: tuple[LossSpec, ...] = ()
    step: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", tuple(entries("losses", self.losses, "a sequence of LossSpec", LossSpec)))
        object.__setattr__(self, "step", number("step", self.step, above=0))

    @classmethod
    def original(cls, step: float = 1.0) -> Criterion:
        """Return the module's own losses, at ``step`` times its learning rate."""
        return cls((), step)

    @classmethod
    def of(cls, name: str, theta: Sequence[float] = (), step: float = 1.0) -> Criterion:
        """Return one loss of the family ``name`` with parameters ``theta``."""
        return cls((LossSpec(name, tuple(theta)),), step)

    @property
    def is_original(self) -> bool:
        """Whether this is the module's own loss at its own learning rate."""
        return not self.losses and self.step == 1

    @property
    def formula(self) -> str:
        """``f(y, h)`` of each loss in plain text, and the step unless it is 1; empty for the module's own losses."""
        text = "; ".join(loss.formula for loss in self.losses)
        return text if self.step == 1 else f"{text}{', ' if text else ''}learning rate x {self.step:.3g}"

    @property
    def shape(self) -> tuple[tuple[str, int], ...]:
        """Family and number of parameters of each loss: criteria of one shape can be stacked."""
        return tuple((loss.family, len(loss.theta)) for loss in self.losses)

    @property
    def digest(self) -> str:
        """A short hash of the criterion, for keys."""
        return sha256(json.dumps(self.to_dict()).encode()).hexdigest()[:12]

    def build(self, original: Any = None) -> Any:
        """Build the loss to train with in place of ``original``; the step is the optimizer's business.

        Raises:
            ValueError: the criterion holds several losses.
        """
        if len(self.losses) > 1:
            raise ValueError("This criterion holds several losses; build each of `criterion.losses`.")
        return self.losses[0].build(original) if self.losses else original
