"""The course of a race: the metric of every member at every check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tglo_lightning.search.criterion import Criterion

__all__ = ["Curves"]


@dataclass(frozen=True)
class Curves:
    """The monitored metric of networks that trained side by side.

    Attributes:
        unit: what the checks are counted in, ``"epochs"`` or ``"steps"``.
        checks: epochs or steps after which the networks were validated.
        criteria: what each member was trained with.
        values: the metric of each member at each check; NaN where the training failed or had been ended.
        winner: the member whose network was kept.
        kept_at: the check that its weights come from, one of ``checks``.
    """

    unit: str
    checks: tuple[int, ...]
    criteria: tuple[Criterion, ...]
    values: tuple[tuple[float, ...], ...]
    winner: int
    kept_at: int

    def names(self, original: str) -> list[str]:
        """Return a short name of each member; ``original`` is that of the module's own loss."""
        return [_name(criterion, original) for criterion in self.criteria]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``None`` in place of what is not finite."""
        return {
            **vars(self),
            "checks": list(self.checks),
            "criteria": [criterion.to_dict() for criterion in self.criteria],
            "values": [[value if math.isfinite(value) else None for value in row] for row in self.values],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Curves:
        """Return the curves that :meth:`to_dict` described."""
        return cls(
            **{
                **values,
                "checks": tuple(values["checks"]),
                "criteria": tuple(map(Criterion.from_dict, values["criteria"])),
                "values": tuple(_numbers(row) for row in values["values"]),
            }
        )


def _numbers(row: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in row)


def _name(criterion: Criterion, original: str) -> str:
    families = ", ".join(loss.family for loss in criterion.losses) or original
    return families if criterion.step == 1 else f"{families}, rate x {criterion.step:.3g}"
