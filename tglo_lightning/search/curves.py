"""The course of a race: the metric of every member at every check."""

from __future__ import annotations

from dataclasses import dataclass

from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.plain import Plain


@dataclass(frozen=True)
class Curves(Plain):
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
        names = [", ".join(loss.family for loss in criterion.losses) or original for criterion in self.criteria]
        steps = [criterion.step for criterion in self.criteria]
        return [name if s == 1 else f"{name}, rate x {s:.3g}" for name, s in zip(names, steps, strict=True)]
