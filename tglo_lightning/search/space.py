"""Spaces to search in: from coordinates to criteria."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from os import PathLike
from typing import Any

import torch
from typing_extensions import Self

from tglo_lightning.arguments import choice, entries, flag, integer, number
from tglo_lightning.losses import FAMILIES, FamilyLoss, family
from tglo_lightning.losses.class_priors import PriorLoss
from tglo_lightning.losses.functional import num_parameters
from tglo_lightning.losses.priors import Prior, as_prior
from tglo_lightning.search.criterion import Criterion, LossSpec
from tglo_lightning.theory import from_minimal, from_shape, trainability
from tglo_lightning.wording import counted

CONSTRAINTS = ("trainable", "stable", "published")
COORDINATES = ("minimal", "full")
# The last axis of a space with a step: the logarithm of the factor on the learning rate
STEP = "log_step"

Constraint = Callable[[list[float]], bool]


class Space(ABC):
    """Coordinates to search in.

    Attributes:
        axes: names of the coordinates.
        centre: coordinates that a search starts from.
        spread: standard deviation of the first draws, for each coordinate.
        num_classes: classes of the task, set by :meth:`for_task`.
        priors: frequencies of the classes among the training labels, if they are known; set by :meth:`for_task`.
    """

    num_classes: int = 2
    priors: tuple[float, ...] | None = None
    axes: tuple[str, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]

    @abstractmethod
    def decode(self, x: Sequence[float]) -> Criterion:
        """Return the criterion at coordinates ``x``, one number for each axis."""

    def feasible(self, criterion: Criterion) -> bool:
        """Whether ``criterion`` is worth training. Draws that are not are drawn again before anything is trained."""
        return True

    def for_task(self, num_classes: int, priors: Sequence[float] | None = None) -> Self:
        """Return the space for a task with ``num_classes`` classes of frequencies ``priors``."""
        twin = copy.copy(self)
        twin.num_classes, twin.priors = num_classes, None if priors is None else tuple(priors)
        return twin

    def around(self, x: Sequence[float], spread: float) -> Self:
        """Return the same space with its centre at ``x`` and ``spread`` times the spread."""
        twin = copy.copy(self)
        twin.centre, twin.spread = tuple(x), tuple(spread * value for value in self.spread)
        return twin

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that tell this space from another one."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"name": name, "axes": list(self.axes), "centre": list(self.centre), "spread": list(self.spread)}


class SteppedSpace(Space):
    """A space whose last coordinate may be the logarithm of the step; ``rows``: names, centres, spreads of others."""

    def __init__(self, rows: Iterable[tuple[str, float, float]], step: bool = True, start: float = 1.0) -> None:
        self.step = flag("step", step)
        last = [(STEP, math.log(start), 1.0)] if step else []
        self.axes, self.centre, self.spread = zip(*rows, *last, strict=True)

    def split(self, x: Sequence[float]) -> tuple[list[float], float]:
        """Return the coordinates without the step, and the step."""
        if not self.step:
            return list(x), 1.0
        # Beyond any use, and exp would overflow
        return list(x[:-1]), math.exp(max(min(x[-1], 50.0), -50.0))


class TaylorSpace(SteppedSpace):
    """TaylorGLO losses.

    Args:
        order: order of the polynomial, at least 2.
        coordinates: ``"minimal"``: the ``2 (order - 1)`` numbers that the weights can feel with hard labels, see
            :func:`tglo_lightning.theory.to_minimal`. ``"full"``: all of ``theta``, for soft targets such as mixup's.
        constraint: what must hold of a loss to be trained: ``"trainable"`` (the first step pushes the true class up),
            ``"stable"`` (and no drift to one class), ``"published"`` (the method's published invariant), ``None``, or a
            function of ``theta``, a list of floats. See :func:`tglo_lightning.theory.trainability`.
        step: whether to search over the learning rate as well, as one more coordinate.
        spread: standard deviation of the first draws.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name.

    Source: arXiv 2002.00059 (the start at 0 with a spread of 1.2).

    >>> TaylorSpace().axes
    ('c_0', 'c_1', 'c_2', 'c_3')
    """

    def __init__(
        self,
        order: int = 3,
        coordinates: str = "minimal",
        constraint: Constraint | str | None = "trainable",
        step: bool = False,
        spread: float = 1.2,
    ) -> None:
        self.order = integer("order", order, 2)
        self.coordinates = choice("coordinates", coordinates, COORDINATES)
        if not (constraint is None or callable(constraint)):
            choice("constraint", constraint, CONSTRAINTS, ", None or a function")
        self.constraint = constraint
        spread = number("spread", spread, above=0)
        name, count = ("theta", num_parameters(order)) if coordinates == "full" else ("c", 2 * (order - 1))
        super().__init__([(f"{name}_{i}", 0.0, spread) for i in range(count)], step)

    def decode(self, x: Sequence[float]) -> Criterion:
        """Return the TaylorGLO loss at coordinates ``x``."""
        theta, step = self.split(x)
        if self.coordinates == "minimal":
            theta = from_minimal(torch.tensor(theta, dtype=torch.float64)).tolist()
        return Criterion.of("taylorglo", theta, step)

    def feasible(self, criterion: Criterion) -> bool:
        """Whether the loss satisfies the constraint."""
        theta = list(criterion.losses[0].theta)
        if callable(self.constraint):
            return bool(self.constraint(theta))
        return self.constraint is None or bool(getattr(trainability(theta, self.num_classes), self.constraint))

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments; a function as constraint by its name."""
        given = self.constraint
        name = getattr(given, "__qualname__", "function") if callable(given) else given
        options = {"order": self.order, "coordinates": self.coordinates, "constraint": name, "step": self.step}
        return {"name": "taylorglo", **options, "spread": list(self.spread)}


class ShapeSpace(SteppedSpace):
    """Shape and step: TaylorGLO losses of order 3 without their scale, and the learning rate.

    A factor of a loss does nothing under Adam and its kin, so it is no coordinate. Every loss is divided by its mean
    pull and trains at the learning rate of cross-entropy; the step is a factor on that rate. A search starts at a
    prior, by default the shape of :func:`~tglo_lightning.losses.robust`, which was found on many tasks at once.

    Args:
        prior: name of a prior of the package, path of a file of one, or a :class:`~tglo_lightning.losses.priors.Prior`.
        spread: standard deviation of the first draws of each number of the shape, in place of the prior's; above 0.

    Raises:
        OSError, TypeError, ValueError: no prior, or a spread that is no number above 0.

    >>> ShapeSpace().axes
    ('t_1', 't_2', 't_3', 'log_step')
    """

    def __init__(self, prior: Prior | str | PathLike[str] = "shared", spread: float | None = None) -> None:
        found = as_prior(prior)
        widths = found.spread if spread is None else [number("spread", spread, above=0)] * len(found.t)
        rows = [(f"t_{i}", t, width) for i, (t, width) in enumerate(zip(found.t, widths, strict=True), start=1)]
        super().__init__(rows, start=found.step)

    def decode(self, x: Sequence[float]) -> Criterion:
        """Return the normalised loss of shape ``x[:-1]``, and the step."""
        t, step = self.split(x)
        theta = from_minimal(from_shape(1.0, t, self.num_classes))
        if not bool(torch.isfinite(theta).all()):
            # Without a pull there is nothing to divide by; a loss of zeros cannot be trained either
            theta = torch.zeros_like(theta)
        return Criterion.of("taylorglo", theta.tolist(), step)

    def feasible(self, criterion: Criterion) -> bool:
        """Whether the first step pushes the true class up."""
        return bool(trainability(list(criterion.losses[0].theta), self.num_classes).trainable)


class StepSpace(SteppedSpace):
    """The learning rate of the module's own loss."""

    def __init__(self) -> None:
        super().__init__([])

    def decode(self, x: Sequence[float]) -> Criterion:
        """Return the module's own loss at ``exp(x[0])`` times its learning rate."""
        return Criterion.original(self.split(x)[1])


class FamilySpace(SteppedSpace):
    """The parameters of one family of losses, and the learning rate.

    Args:
        family: name or class of the family.
        step: whether to search over the learning rate as well, as one more coordinate.

    Raises:
        ValueError: an unknown family.

    >>> FamilySpace("smoothing").axes
    ('alpha', 'log_step')
    """

    def __init__(self, family: str | type[FamilyLoss], step: bool = True) -> None:
        self.family = _find("family", family)
        if self.family.family == "taylorglo":
            raise ValueError("`family` must not be 'taylorglo', whose parameters are many: that is TaylorSpace.")
        axes = self.family.axes
        if not axes and not step:
            raise ValueError(f"The family {self.family.family!r} has no parameters; search over its step.")
        super().__init__([(axis.name, axis.encode(axis.default), axis.spread) for axis in axes], step)

    def decode(self, x: Sequence[float]) -> Criterion:
        """Return the loss at coordinates ``x``."""
        values, step = self.split(x)
        theta = [axis.decode(value) for axis, value in zip(self.family.axes, values, strict=True)]
        if issubclass(self.family, PriorLoss) and self.priors is not None:
            theta += self.priors
        return Criterion.of(self.family.family, theta, step)

    def feasible(self, criterion: Criterion) -> bool:
        """Whether an undecided output is pulled to its target, if the family can tell."""
        return not hasattr(self.family, "trainable") or bool(self.family.of(criterion.losses[0].theta).trainable)

    def to_dict(self) -> dict[str, Any]:
        """Return the family's name and whether the step is searched."""
        return {"name": self.family.family, "step": self.step}


class ProductSpace(Space):
    """Several losses at once: the coordinates of one space after those of another, and one step for all.

    Args:
        spaces: one space for each place in the module. A network has one learning rate, so the axis ``log_step`` of
            those that have one comes once, at the end.

    Raises:
        TypeError: not a list of spaces.

    >>> ProductSpace([FamilySpace("gce"), FamilySpace("smoothing")]).axes
    ('q[0]', 'alpha[1]', 'log_step')
    """

    def __init__(self, spaces: Sequence[Space]) -> None:
        self.spaces: list[Space] = entries("spaces", spaces, "a list of spaces", Space, least=1)
        self._losses = [len(space.decode(space.centre).losses) for space in self.spaces]
        self._steps = [space.axes[-1:] == (STEP,) for space in self.spaces]
        rows = [
            (name if name == STEP else f"{name}[{i}]", centre, spread)
            for i, space in enumerate(self.spaces)
            for name, centre, spread in zip(space.axes, space.centre, space.spread, strict=True)
        ]
        rows = [row for row in rows if row[0] != STEP] + [row for row in rows if row[0] == STEP][:1]
        self.axes, self.centre, self.spread = zip(*rows, strict=True) if rows else ((), (), ())

    def decode(self, x: Sequence[float]) -> Criterion:
        """Return the losses at coordinates ``x``, one after the other."""
        specs: list[LossSpec] = []
        steps, common, start = 1.0, 1.0, 0
        for space, shared in zip(self.spaces, self._steps, strict=True):
            stop = start + len(space.axes) - shared
            part = space.decode([*x[start:stop], *(x[-1:] if shared else [])])
            specs += part.losses
            common, steps = (part.step, steps) if shared else (common, steps * part.step)
            start = stop
        return Criterion(tuple(specs), steps * common)

    def feasible(self, criterion: Criterion) -> bool:
        """Whether each space finds its part feasible, at the step of the whole."""
        losses = iter(criterion.losses)
        parts = [Criterion(tuple(islice(losses, count)), criterion.step) for count in self._losses]
        return all(space.feasible(part) for space, part in zip(self.spaces, parts, strict=True))

    def for_task(self, num_classes: int, priors: Sequence[float] | None = None) -> Self:
        """Return the product of the spaces for a task."""
        return type(self)([space.for_task(num_classes, priors) for space in self.spaces])

    def to_dict(self) -> dict[str, Any]:
        """Return what each space says."""
        return {"name": "product", "spaces": [space.to_dict() for space in self.spaces]}


# What ``space="shape"`` stands for, by the kind of target
DEFAULT_SPACES: dict[str, Callable[[], Space]] = {
    "classes": ShapeSpace,
    "binary": partial(FamilySpace, "binary_taylor"),
    "regression": partial(FamilySpace, "barron"),
}


# Names besides those of families
NAMED: dict[str, type[Space]] = {"taylorglo": TaylorSpace, "shape": ShapeSpace, "original": StepSpace}


def as_space(space: Space | type[FamilyLoss] | str, places: int | None = None) -> Space:
    """Return a space: ``"taylorglo"``, ``"shape"``, ``"original"``, a family by its name or class, or an object.

    Args:
        space: what is given.
        places: losses that are searched for together: a space of one is multiplied.

    Raises:
        TypeError, ValueError: it is none of these, or a space of another number of losses.
    """
    if isinstance(space, str) and space in NAMED:
        space = NAMED[space]()
    elif not isinstance(space, Space):
        kind = _find("space", space, *NAMED)
        space = TaylorSpace() if kind.family == "taylorglo" else FamilySpace(kind)
    if places is None:
        return space
    losses = len(space.decode(space.centre).losses)
    if losses == 1 and places > 1:
        return ProductSpace([space] * places)
    if losses not in (0, places):
        raise ValueError(f"`space` must be one of {counted(places, 'loss')}, got one of {losses}.")
    return space


def space_for(space: Space, kind: str) -> Space:
    """Return the space for a kind of target, ``"classes"``, ``"binary"`` or ``"regression"``.

    Raises:
        ValueError: its losses are for targets of another kind.
    """
    if isinstance(space, ProductSpace):
        return ProductSpace([space_for(each, kind) for each in space.spaces])
    if type(space) is ShapeSpace and kind != "classes":
        return DEFAULT_SPACES[kind]()
    kinds = {family(loss.family).kind for loss in space.decode(space.centre).losses}
    if kinds - {kind}:
        fit = ", ".join(repr(name) for name, each in sorted(FAMILIES.items()) if each.kind == kind and each.axes)
        raise ValueError(
            f"`space` holds losses of {kinds.pop()} targets, but the module's loss is one of {kind} targets. Leave "
            f"`space` at its default, or pass one of {fit}."
        )
    return space


def _find(argument: str, given: Any, *others: str) -> type[FamilyLoss]:
    """The family that is given by its name or class; ``others`` are names that could have been given too."""
    if isinstance(given, type) and issubclass(given, FamilyLoss):
        return given
    if not isinstance(given, str):
        other = ", or a Space" if others else ""
        raise TypeError(f"`{argument}` must be the name or class of a family of losses{other}, got {given!r}.")
    choice(argument, given, sorted({*FAMILIES, *others}), ", or a Space" if others else "")
    return family(given)
