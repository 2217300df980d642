"""A strategy that spends its candidates on several spaces."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from tglo_lightning.arguments import choice, integer, number
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.presets import RATES, Presets, StagedCMAES, WarmCMAES
from tglo_lightning.search.race import Race
from tglo_lightning.search.space import Space, as_space, space_for
from tglo_lightning.search.strategy import CMAES, RandomSearch, Strategy, normal

KNOWN = ("original", "smoothing", "gce", "sce", "nce_rce", "focal")
"""What a practitioner would try: the module's own loss and known losses, each with its learning rate."""
KNOWN_OF = {
    "classes": KNOWN,
    "binary": ("original", "binary_smoothing", "binary_focal", "asymmetric"),
    "regression": ("original", "huber", "barron"),
}


class Portfolio(StagedCMAES):
    """Tries several spaces, then refines the best candidate.

    First come the presets: the centre of each space at each of ``rates``. Random draws from the spaces follow, up to
    ``explore`` candidates in all. From then on CMA-ES searches the space of the best candidate so far, around it.

    Args:
        spaces: names of spaces or families, or spaces; by default the module's own loss and known losses.
        rates: factors on the learning rate that presets are tried with; only for spaces with a step.
        explore: candidates before the refinement, at least 1.
        sigma: first step size of the refinement, a factor on the space's spread.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name.

    >>> from tglo_lightning.search import FamilySpace
    >>> strategy = Portfolio(["original", "gce"], rates=[1.0, 0.3])
    >>> strategy.start(FamilySpace("gce").for_task(10), population=4, seed=0)
    >>> [criterion.formula for criterion in strategy.ask()][1:3]
    ['y (h^0.7 - 1) / 0.7', 'learning rate x 0.3']
    """

    def __init__(
        self,
        spaces: Sequence[str | Space] = KNOWN,
        rates: Sequence[float] = RATES,
        explore: int = 60,
        sigma: float = 0.5,
    ) -> None:
        if isinstance(spaces, str) or not spaces:
            raise ValueError(f"`spaces` must be a list of spaces, got {spaces!r}.")
        self.known = tuple(spaces) == KNOWN
        self.given = [as_space(space) for space in spaces]
        self.rates = [number("rates", rate, above=0) for rate in rates]
        self.explore = integer("explore", explore, 1)
        super().__init__(sigma)

    def for_kind(self, kind: str) -> Portfolio:
        """Return the portfolio for a kind of target: with the losses that are known there, unless spaces were given."""
        twin = copy.copy(self)
        spaces = [as_space(name) for name in KNOWN_OF[kind]] if self.known else self.given
        twin.given = [space_for(space, kind) for space in spaces]
        return twin

    def start(self, space: Space, population: int, seed: int) -> None:
        """Begin with the presets. ``space`` tells the number of classes and of losses only."""
        super().start(space, population, seed)
        places = max(1, len(space.decode(space.centre).losses))
        self._spaces = [as_space(each, places).for_task(space.num_classes, space.priors) for each in self.given]
        self._tried = 0
        self._asked: list[tuple[int, list[float]]] = []
        self._best: tuple[float, int, list[float]] | None = None

    def first(self) -> list[Criterion]:
        """Return presets and random draws."""
        every = [(index, _at(space, rate)) for rate in self.rates for index, space in enumerate(self._spaces)]
        presets = [(index, x) for index, x in every if x is not None]
        self._asked = presets[self._tried : self._tried + self.population]
        while len(self._asked) < self.population:
            index = (self._tried + len(self._asked)) % len(self._spaces)
            space = self._spaces[index]
            [x], _ = self.draw(partial(normal, space, self.generator), 1, space)
            self._asked.append((index, x))
        return [self._spaces[index].decode(x) for index, x in self._asked]

    def learn(self, costs: Sequence[float]) -> tuple[int, list[float]] | None:
        """Begin at the best candidate when enough were tried."""
        self._tried += len(costs)
        for cost, (index, x) in zip(costs, self._asked, strict=True):
            if math.isfinite(cost) and (self._best is None or cost < self._best[0]):
                self._best = (cost, index, x)
        return None if self._best is None or self._tried < self.explore else self._best[1:]

    def state_dict(self) -> dict[str, Any]:
        """Return what was tried, and the state of CMA-ES."""
        return {**super().state_dict(), "tried": self._tried, "best": self._best and list(self._best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        super().load_state_dict(state)
        self._tried, self._best = state["tried"], state["best"] and tuple(state["best"])

    def to_dict(self) -> dict[str, Any]:
        """Return the spaces and the arguments."""
        return {**super().to_dict(), "spaces": [space.to_dict() for space in self.given], "rates": self.rates}


def _at(space: Space, rate: float) -> list[float] | None:
    """The centre of a space at a learning rate; ``None`` if the space has no step and the rate is not 1."""
    x = dict(zip(space.axes, space.centre, strict=True))
    if "log_step" in x:
        x["log_step"] = math.log(rate)
    return list(x.values()) if rate == 1 or "log_step" in x else None


STRATEGIES: dict[str, type[Strategy]] = {
    "presets": Presets,
    "warm": WarmCMAES,
    "cmaes": CMAES,
    "random": RandomSearch,
    "portfolio": Portfolio,
    "race": Race,
}


def as_strategy(strategy: Strategy | str) -> Strategy:
    """Return a strategy: an object, or one by its name, a key of :data:`STRATEGIES`.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    if isinstance(strategy, str):
        return STRATEGIES[choice("strategy", strategy, list(STRATEGIES), ", or a Strategy")]()
    if not isinstance(strategy, Strategy):
        raise TypeError(f"`strategy` must be a name or an instance of a Strategy, got {strategy!r}.")
    return strategy
