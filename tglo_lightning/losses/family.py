"""Families of losses: what a search, a result and a config know them by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tglo_lightning.arguments import number

if TYPE_CHECKING:
    from tglo_lightning.losses.loss import FamilyLoss

FAMILIES: dict[str, type[FamilyLoss]] = {}
"""Every family by its name. A subclass of ``FamilyLoss`` enters itself when it is defined."""


@dataclass(frozen=True)
class Axis:
    """One parameter of a family.

    A search moves in coordinates without bounds: a parameter with two bounds is a scaled logistic function of its
    coordinate, one with a lower bound an exponential, one without bounds the coordinate itself.

    Attributes:
        name: name of the parameter, the same as in the constructor.
        default: published or usual value, where a search starts.
        low: lower bound, excluded.
        high: upper bound, excluded; needs ``low``.
        spread: standard deviation of the first draws, in the search's coordinate.

    >>> q = Axis("q", default=0.7, low=0, high=1)
    >>> round(q.decode(q.encode(0.7)), 6)
    0.7
    """

    name: str
    default: float
    low: float = -math.inf
    high: float = math.inf
    spread: float = 1.0

    def encode(self, value: float) -> float:
        """Return the coordinate of a value within the bounds."""
        if math.isfinite(self.high):
            return math.log((value - self.low) / (self.high - value))
        return math.log(value - self.low) if math.isfinite(self.low) else value

    def decode(self, x: float) -> float:
        """Return the value at a coordinate."""
        if math.isfinite(self.high):
            # Far out the logistic function rounds to 0 or 1, and both bounds are excluded
            share = min(max(1 / (1 + math.exp(-max(min(x, 700.0), -700.0))), 1e-12), 1 - 1e-12)
            return self.low + (self.high - self.low) * share
        return self.low + math.exp(max(min(x, 700.0), -700.0)) if math.isfinite(self.low) else x

    def check(self, value: float) -> float:
        """Return ``value`` as a float; an error if it is none, or outside the bounds, which are accepted here."""
        return number(self.name, value, least=self.low, most=self.high)


def family(name: str) -> type[FamilyLoss]:
    """Return the family called ``name``.

    Raises:
        ValueError: no family of this name has been defined. Nothing is imported here, so that a stored result cannot
            run code.
    """
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"No family of losses is called {name!r}; known: {known}. Import the module that defines it.")
    return FAMILIES[name]
