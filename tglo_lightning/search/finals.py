"""The finals: choose a candidate on some seeds, confirm it on fresh ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from tglo_lightning.arguments import integer, number
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.evaluator import Evaluation
from tglo_lightning.search.plain import Plain
from tglo_lightning.search.result import Candidate, Finalist

# Confirming seeds after which a small search looks whether the case is clear
LOOK = 4

# (stage, number of the seed, criteria) -> their evaluations
Train = Callable[[str, int, Sequence[Criterion]], Sequence[Evaluation]]


@dataclass(frozen=True)
class Outcome:
    """What the finals decided.

    Attributes:
        finalists: the candidates that were trained again, best first, with their fitness on the choosing seeds.
        best: the chosen one, with its fitness on the confirming seeds; ``None`` if no finalist could be trained.
        original: the module's own loss, with its fitness on the same confirming seeds.
        p_value: one-sided p of the confirmation; ``None`` if there is no test.
        replaces: whether the chosen candidate takes the place of the original.
    """

    finalists: list[Finalist]
    best: Finalist | None
    original: Finalist
    p_value: float | None
    replaces: bool


@dataclass(frozen=True)
class Finals(Plain):
    """How a winner is chosen and confirmed.

    The best candidates of the search are trained again from ``seeds`` fresh seeds, and the one with the best mean is
    chosen. Then the chosen one and the module's own loss are trained from ``confirm`` other seeds each, and the
    differences are tested seed by seed, one-sided: a choice among many is too good by chance on the numbers that it was
    made by, never on fresh ones. With ``confirm=1`` there is no test, and the better one is kept.

    With a ``look`` clear cases end early: after so many confirming seeds the own loss is kept if it is no worse so far,
    and replaced if the p-value is small enough already. Because of the second chance p-values are doubled.

    Attributes:
        finalists: candidates that are trained again, at least 1.
        seeds: seeds to choose by, at least 1; 0 takes the best candidate of the search as it is.
        confirm: seeds to confirm by, at least 1.
        level: largest p-value that counts as confirmed, in (0, 1].
        look: confirming seeds after which a clear case ends, at least 2; 0, or ``confirm`` and more, for no look.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name.
    """

    finalists: int = 5
    seeds: int = 2
    confirm: int = 10
    level: float = 0.05
    look: int = 0

    def __post_init__(self) -> None:
        least = {"finalists": 1, "seeds": 0, "confirm": 1, "look": 0}
        vars(self).update({name: integer(name, getattr(self, name), low) for name, low in least.items()})
        vars(self).update(level=number("level", self.level, above=0, most=1))
        if self.look == 1:
            raise ValueError("`look` must be 0 or at least 2: one seed cannot tell, got 1.")
        if self.look >= self.confirm:
            vars(self).update(look=0)

    @property
    def trainings(self) -> int:
        """Largest number of trainings that the finals take."""
        return self.finalists * self.seeds + 2 * self.confirm

    def run(self, train: Train, history: Sequence[Candidate], original: str, mode: str) -> Outcome:
        """Choose one of the candidates in ``history`` and confirm it against the module's own loss, ``original``.

        ``train`` trains criteria from a seed of a stage, ``"choice"`` or ``"confirmation"``.
        """
        sign = -1.0 if mode == "max" else 1.0
        # The module's own loss is confirmed against anyway
        valid = [c for c in history if c.status == "ok" and not c.criterion.is_original]
        firsts: dict[Criterion, Candidate] = {}
        for candidate in sorted(valid, key=lambda c: sign * c.fitness):
            firsts.setdefault(candidate.criterion, candidate)
        distinct = list(firsts.values())[: self.finalists]
        rounds = [train("choice", seed, [c.criterion for c in distinct]) for seed in range(self.seeds)]
        finalists = []
        for rank, c in enumerate(distinct):
            name = f"finalist {rank + 1}" if c.criterion.losses else original
            finalists.append(Finalist.of(c.criterion, name, [evaluations[rank] for evaluations in rounds], c))
        if self.seeds:
            finalists.sort(key=lambda f: sign * f.mean if math.isfinite(f.mean) else math.inf)
        chosen = next((f for f in finalists if not self.seeds or math.isfinite(f.mean)), None)
        own = Criterion.original()
        rounds = []
        for seed in range(self.confirm):
            rounds.append(train("confirmation", seed, [own] if chosen is None else [chosen.criterion, own]))
            incumbent = Finalist.of(own, original, [evaluations[-1] for evaluations in rounds])
            if chosen is None:
                continue
            best = Finalist.of(chosen.criterion, chosen.name, [evaluations[0] for evaluations in rounds], chosen)
            p_value, replaces = self._decide(best, incumbent, mode)
            if seed + 1 == self.look and (replaces or p_value is None or p_value >= 1):
                break
        if chosen is None:
            return Outcome(finalists, None, incumbent, None, False)
        return Outcome(finalists, best, incumbent, p_value, replaces)

    def _decide(self, best: Finalist, original: Finalist, mode: str) -> tuple[float | None, bool]:
        """The p-value, and whether ``best`` replaces ``original``."""
        # What crashed was not beaten, and what failed from one seed cannot be trusted
        if original.errors or not math.isfinite(best.mean):
            return None, False
        sign = 1.0 if mode == "max" else -1.0
        pairs = zip(best.fitness, without_diverged(original, best, mode), strict=True)
        differences = [sign * (a - b) for a, b in pairs]
        p_value = paired_p_value(differences)
        if p_value is not None and self.look:
            p_value = min(1.0, 2 * p_value)
        better = sum(differences) > 0
        return p_value, better if p_value is None else better and p_value <= self.level


def without_diverged(original: Finalist, best: Finalist, mode: str) -> list[float]:
    """Return the fitness of ``original``; a training that diverged counts as the worst value of both finalists."""
    finite = [value for value in (*best.fitness, *original.fitness) if math.isfinite(value)]
    worst = (min if mode == "max" else max)(finite, default=math.nan)
    return [value if math.isfinite(value) else worst for value in original.fitness]


def paired_p_value(differences: Sequence[float]) -> float | None:
    """Return the one-sided p-value of the paired t-test that the mean difference is above 0.

    ``None`` if there is nothing to test: fewer than two differences, or all the same.

    >>> round(paired_p_value([0.1, 0.3, 0.2]), 4)
    0.0371
    """
    from scipy.special import stdtr

    if len(set(differences)) < 2:
        return None
    n = len(differences)
    return float(stdtr(n - 1, -fmean(differences) / (stdev(differences) / math.sqrt(n))))


def as_finals(finals: Finals | int | None, small: bool = False) -> Finals:
    """Return finals; a plain number is the number of confirming seeds, ``None`` stands for 10.

    ``small`` ones have 3 finalists, 1 seed to choose by, and a look at clear cases after 4 seeds.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    if isinstance(finals, Finals):
        return finals
    confirm = Finals.confirm if finals is None else integer("finals", finals, 1)
    return Finals(3, 1, confirm, look=LOOK) if small else Finals(confirm=confirm)
