"""Criteria that are worth trying on any task, alone or before CMA-ES."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

from tglo_lightning.losses import family, robust
from tglo_lightning.search.criterion import Criterion, LossSpec
from tglo_lightning.search.space import Space
from tglo_lightning.search.strategy import CMAES, Strategy, normal

RATES = (1.0, 0.3, 3.0, 0.1)
"""Factors on the module's own learning rate."""

# Known losses for targets of other kinds than classes, three of them or one at three rates
KNOWN = {"binary": ("binary_smoothing", "binary_focal", "asymmetric"), "regression": ("huber",)}
# Above this ratio of the most to the least frequent class, losses for unbalanced classes are tried
UNBALANCED = 3.0
SCE = LossSpec("sce", (0.1, 1.0))
SMOOTHING = LossSpec("smoothing", (0.1,))


def presets(
    num_classes: int, priors: Sequence[float] | None = None, places: int = 1, start: Criterion | None = None
) -> list[Criterion]:
    """Return ten criteria: the module's own loss, label smoothing, and two robust losses at four learning rates each.

    The robust losses are SCE as published and :func:`~tglo_lightning.losses.robust`. For unbalanced classes logit
    adjustment and class weights take the place of the lowest learning rate.

    Args:
        num_classes: classes of the task.
        priors: frequencies of the classes among the training labels, if they are known.
        places: losses in the module, each replaced by the same one.
        start: a criterion in place of :func:`~tglo_lightning.losses.robust`, with a learning rate of its own. If it is
            for binary or continuous targets, the others are too: the module's own loss at four learning rates, this
            one at three, and known losses.

    >>> [criterion.formula for criterion in presets(10)][:2]
    ['', 'y log(h), labels smoothed by 0.1']
    >>> len(presets(10)), len(presets(2, priors=[0.9, 0.1]))
    (10, 10)
    """
    if start is not None and start.losses and (kind := family(start.losses[0].family).kind) != "classes":
        return _of_kind(kind, start)
    shared = (LossSpec("taylorglo", tuple(robust(num_classes).theta.tolist())),) * places
    if start is None or not start.losses:
        start = Criterion(shared)
    unbalanced = priors is not None and max(priors) > UNBALANCED * min(priors)
    found = [Criterion.original(), Criterion((SMOOTHING,) * places)]
    for rate in RATES[:-1] if unbalanced else RATES:
        found += [Criterion((SCE,) * places, rate), Criterion(start.losses, start.step * rate)]
    if unbalanced:
        assert priors is not None
        rivals = [LossSpec("logit_adjustment", (1.0, *priors)), LossSpec("class_weights", (1.0, *priors))]
        found += [Criterion((spec,) * places) for spec in rivals]
    # A start that is one of the others makes room for the shared one; its numbers were rounded on the way
    unique: dict[str, Criterion] = {}
    for criterion in [*found, *(Criterion(shared, rate) for rate in RATES)]:
        unique.setdefault(criterion.formula, criterion)
    return list(unique.values())[: len(found)]


def _of_kind(kind: str, start: Criterion) -> list[Criterion]:
    """Presets for binary or continuous targets: the module's own loss, known ones and ``start``, at several rates."""
    known = [LossSpec(name, tuple(axis.default for axis in family(name).axes)) for name in KNOWN[kind]]
    found = [Criterion.original(rate) for rate in RATES]
    found += [Criterion(start.losses, start.step * rate) for rate in RATES[:3]]
    rates = RATES[: 3 // len(known)]
    return [*found, *(Criterion((spec,) * len(start.losses), rate) for rate in rates for spec in known)]


class Presets(Strategy):
    """Tries the presets and searches no further: a single generation of ten candidates.

    The centre of the space is one of the losses, see :func:`presets`.
    """

    generations = 1
    COUNT = 10

    def ask(self) -> list[Criterion]:
        """Return the presets."""
        return presets_of(self.space)

    def candidates(self, generations: int, population: int) -> int:
        """Return the number of presets."""
        return self.COUNT


class StagedCMAES(CMAES):
    """CMA-ES that begins at the best of candidates that are tried before.

    A subclass says which those are, by :meth:`first`, and where to begin, by :meth:`learn`.
    """

    def start(self, space: Space, population: int, seed: int) -> None:
        """Begin with the candidates that are tried before."""
        super().start(space, population, seed)
        self._spaces, self._seed = [space], seed
        self._begun: list[Any] | None = None

    @abstractmethod
    def first(self) -> list[Criterion]:
        """Return a generation of what is tried before."""

    @abstractmethod
    def learn(self, costs: Sequence[float]) -> tuple[int, list[float]] | None:
        """Return the space and the coordinates in it that CMA-ES begins at; ``None`` to try more."""

    def ask(self) -> list[Criterion]:
        """Return what is tried before, later a generation of CMA-ES."""
        return self.first() if self._begun is None else super().ask()

    def tell(self, costs: Sequence[float]) -> None:
        """Find out where to begin, later move the distribution."""
        if self._begun is not None:
            super().tell(costs)
        elif begin := self.learn(costs):
            self._begin(*begin)

    def retry(self) -> bool:
        """Halve the step size, unless what is tried before has failed."""
        return self._begun is not None and super().retry()

    def metrics(self) -> dict[str, float]:
        """Return the step size of CMA-ES."""
        return {} if self._begun is None else super().metrics()

    def state_dict(self) -> dict[str, Any]:
        """Return where CMA-ES began, and its state."""
        own = Strategy.state_dict(self) if self._begun is None else super().state_dict()
        return {**own, "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        if state["begun"] is None:
            return Strategy.load_state_dict(self, state)
        self._begin(*state["begun"])
        return super().load_state_dict(state)

    def _begin(self, index: int, x: list[float]) -> None:
        """Start CMA-ES at coordinates ``x`` of a space."""
        CMAES.start(self, self._spaces[index].around(x, 1.0), self.population, self._seed)
        self._begun = [index, x]


class WarmCMAES(StagedCMAES):
    """Tries the presets first, then searches by CMA-ES around the centre of the space.

    The first generation holds as many presets as it has room for, and draws around the centre. CMA-ES begins at the
    learning rate that the centre did best with.

    Args:
        sigma: initial step size, a factor on the space's spread, above 0.
    """

    def __init__(self, sigma: float = 0.6) -> None:
        super().__init__(sigma)

    def first(self) -> list[Criterion]:
        """Return the presets, and draws around the centre."""
        tried = presets_of(self.space)[: self.population]
        draw = partial(normal, self.space, self.generator, sigma=self.sigma)
        self._first = tried + self.draw(draw, self.population - len(tried))[1]
        return self._first

    def learn(self, costs: Sequence[float]) -> tuple[int, list[float]]:
        """Begin at the centre, at the learning rate that it did best with."""
        losses = self.space.decode(self.space.centre).losses
        pairs = zip(costs, self._first, strict=True)
        rates = [(cost, c.step) for cost, c in pairs if c.losses == losses and math.isfinite(cost)]
        x = dict(zip(self.space.axes, self.space.centre, strict=True))
        if "log_step" in x and rates:
            x["log_step"] = math.log(min(rates)[1])
        return 0, list(x.values())


def presets_of(space: Space) -> list[Criterion]:
    """Return the presets for the task of a space; its centre is one of the losses."""
    start = space.decode(space.centre)
    return presets(space.num_classes, space.priors, max(1, len(start.losses)), start)
