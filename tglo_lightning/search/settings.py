"""The arguments of a search, and what it optimises."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tglo_lightning.arguments import choice, integer
from tglo_lightning.losses import FamilyLoss
from tglo_lightning.search.budget import Budget, as_budget
from tglo_lightning.search.finals import Finals, as_finals
from tglo_lightning.search.portfolio import as_strategy
from tglo_lightning.search.seeding import derived_seed
from tglo_lightning.search.space import Space, as_space, space_for
from tglo_lightning.search.strategy import Strategy

__all__ = ["MODES", "Objective", "SearchSettings"]

MODES = ("max", "min")
STAGES = ("generation", "choice", "confirmation")


@dataclass(frozen=True)
class SearchSettings:
    """Arguments of a search, checked.

    Attributes:
        generations: number of generations, at least 1.
        population: candidates a generation, at least 2.
        space: what is searched over: ``"taylorglo"``, ``"shape"``, ``"original"`` (its learning rate), the name or
            class of a family of losses, or a :class:`~tglo_lightning.search.Space`.
        strategy: how: ``"cmaes"``, ``"random"``, ``"portfolio"``, or a :class:`~tglo_lightning.search.Strategy`.
        finals: how the winner is chosen and confirmed: :class:`~tglo_lightning.search.Finals`, or the number of seeds
            to confirm by.
        budget: how long a candidate trains: a :class:`~tglo_lightning.search.Budget`, or a number of epochs; ``None``
            for the default of whoever trains.
        seed: seed of the draws and, with the number of the generation, of every training; at least 0.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name.
    """

    generations: int = 10
    population: int = 20
    space: Space | type[FamilyLoss] | str = "taylorglo"
    strategy: Strategy | str = "cmaes"
    finals: Finals | int = field(default_factory=Finals)
    budget: Budget | int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        # Plain numbers, or a checkpoint that holds them cannot be read with `weights_only=True`
        for name, least in {"generations": 1, "population": 2, "seed": 0}.items():
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        object.__setattr__(self, "space", as_space(self.space))
        object.__setattr__(self, "strategy", as_strategy(self.strategy))
        object.__setattr__(self, "finals", as_finals(self.finals))
        object.__setattr__(self, "budget", as_budget(self.budget))

    def for_places(self, places: int) -> SearchSettings:
        """Return the settings of a search for several losses at once."""
        return replace(self, space=as_space(self.space, places))

    def for_kind(self, kind: str) -> SearchSettings:
        """Return the settings of a search for losses of a kind of target.

        Raises:
            ValueError: space or strategy are for another kind.
        """
        assert isinstance(self.space, Space)
        assert isinstance(self.strategy, Strategy)
        return replace(self, space=space_for(self.space, kind), strategy=self.strategy.for_kind(kind))

    def for_fit(self, max_epochs: int | None, max_steps: int) -> SearchSettings:
        """Return the settings with a budget: the given one, or the length of a Trainer's fit.

        Raises:
            ValueError: there is neither.
        """
        if self.budget is not None:
            return self
        if max_steps > 0:
            return replace(self, budget=Budget(steps=max_steps))
        if max_epochs is None or max_epochs < 1:
            raise ValueError("This fit has no end, so candidates need one: pass `budget=` a number of epochs.")
        return replace(self, budget=Budget(epochs=max_epochs))

    @property
    def trainings(self) -> int:
        """Largest number of trainings that the search takes, those of the module's own loss included."""
        assert isinstance(self.finals, Finals)
        return self.generations * self.population + self.finals.trainings

    def training_seed(self, stage: str, number: int) -> int:
        """Return the seed of the trainings of a generation, or of a round of the finals."""
        return derived_seed(self.seed, STAGES.index(stage), number)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        assert isinstance(self.finals, Finals)
        assert isinstance(self.space, Space)
        assert isinstance(self.strategy, Strategy)
        return {
            "generations": self.generations,
            "population": self.population,
            "space": self.space.to_dict(),
            "strategy": self.strategy.to_dict(),
            "finals": self.finals.to_dict(),
            "budget": self.budget.to_dict() if isinstance(self.budget, Budget) else None,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Objective:
    """What a search optimises, and the loss that it must beat.

    Attributes:
        num_classes: classes of the task, at least 2.
        monitor: name of the metric.
        mode: ``"max"`` or ``"min"``.
        original: name of the module's own loss.
        options: options of each original loss, see :func:`~tglo_lightning.losses.loss_options`.
    """

    num_classes: int
    monitor: str = "fitness"
    mode: str = "max"
    original: str = "original"
    options: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        choice("mode", self.mode, MODES)
        integer("num_classes", self.num_classes, 2)
