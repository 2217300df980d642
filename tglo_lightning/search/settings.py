"""The arguments of a search, and what it optimises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tglo_lightning.arguments import choice, integer
from tglo_lightning.search.budget import as_budget
from tglo_lightning.search.finals import as_finals
from tglo_lightning.search.portfolio import as_strategy
from tglo_lightning.search.presets import Presets
from tglo_lightning.search.prior import prior_space
from tglo_lightning.search.race import Race
from tglo_lightning.search.seeding import derived_seed
from tglo_lightning.search.space import as_space, space_for
from tglo_lightning.search.strategy import Strategy

MODES = ("max", "min")
STAGES = ("generation", "choice", "confirmation")


@dataclass(frozen=True)
class SearchSettings:
    """Arguments of a search, checked.

    By default a search is small: ten presets, whose best is confirmed (``"presets"``). With a number of generations it
    goes on from there by CMA-ES in the space of the prior (``"warm"``). With a space of your own it is CMA-ES alone.

    Attributes:
        generations: at least 1; ``None`` for the strategy's own: 1 for presets, else 10.
        population: candidates a generation, at least 2.
        space: what is searched over: ``"taylorglo"``, ``"shape"``, ``"original"`` (its learning rate), the name or
            class of a family of losses, or a :class:`~tglo_lightning.search.Space`. ``None`` for that of ``prior``.
        strategy: ``"presets"``, ``"warm"``, ``"cmaes"``, ``"random"``, ``"portfolio"``, or a
            :class:`~tglo_lightning.search.Strategy`; ``None`` for the defaults above.
        prior: where a search starts, unless ``space`` says: ``"shared"``, a loss found on many tasks; the path of a
            ``search.json`` or of a prior's file, or an object of either kind; ``None`` to start at 0 as published.
        finals: how the winner is chosen and confirmed: :class:`~tglo_lightning.search.Finals`, or the number of seeds
            to confirm by. ``None`` for the defaults: 3 finalists, 1 seed and a look after 4 for presets, else
            ``Finals()``.
        budget: how long a candidate trains: a :class:`~tglo_lightning.search.Budget`, or a number of epochs.
        seed: seed of the draws and, with the number of the generation, of every training; at least 0.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range, by its name; a budget that rejects
            candidates, with a strategy that does so by itself.
    """

    # `Any` where more is taken than is kept: an int, a Space, a Strategy, Finals and a Budget
    generations: Any = None
    population: int = 10
    space: Any = None
    strategy: Any = None
    finals: Any = None
    budget: Any = None
    seed: int = 0
    prior: Any = "shared"

    def __post_init__(self) -> None:
        strategy = self.strategy
        if strategy is None:
            strategy = "cmaes" if self.space is not None or self.prior is None else "warm"
            if strategy == "warm" and self.generations is None:
                strategy = "presets"
        strategy = as_strategy(strategy)
        generations = strategy.generations if self.generations is None else self.generations
        # Plain numbers, or a checkpoint that holds them cannot be read with `weights_only=True`
        vars(self).update(
            generations=integer("generations", generations, 1),
            population=integer("population", self.population, 2),
            seed=integer("seed", self.seed, 0),
            space=prior_space(self.prior) if self.space is None else as_space(self.space),
            strategy=strategy,
            finals=as_finals(self.finals, small=isinstance(strategy, Presets)),
            budget=as_budget(self.budget),
        )
        decides = isinstance(strategy, Race) or type(strategy).train is not Strategy.train
        if decides and self.budget.min_fitness_after is not None:
            name = type(strategy).__name__
            raise ValueError(f"`min_fitness_after` has no effect: {name} decides by itself who trains on.")

    def for_places(self, places: int) -> SearchSettings:
        """Return the settings of a search for several losses at once."""
        return replace(self, space=as_space(self.space, places))

    def for_kind(self, kind: str) -> SearchSettings:
        """Return the settings of a search for losses of a kind of target.

        Raises:
            ValueError: space or strategy are for another kind.
        """
        return replace(self, space=space_for(self.space, kind), strategy=self.strategy.for_kind(kind))

    def for_fit(self, max_epochs: int | None, max_steps: int, score: str = "last") -> SearchSettings:
        """Return the settings with a length of training, and the moment of it that counts: as given, or as in a fit.

        Raises:
            ValueError: neither has a length: ``max_epochs`` is ``None`` or negative, and ``max_steps`` negative.
        """
        length: dict[str, Any] = {}
        if not self.budget.length:
            length = {"steps": max_steps} if max_steps > 0 else {"epochs": max_epochs}
            if max_steps <= 0 and (max_epochs or 0) < 1:
                raise ValueError("This fit has no end, so candidates need one: pass `budget=` a number of epochs.")
        return replace(self, budget=replace(self.budget, score=self.budget.score or score, **length))

    @property
    def trainings(self) -> int:
        """Largest number of trainings that the search takes, those of the module's own loss included."""
        return self.candidates + self.strategy.finals(self.finals)

    @property
    def candidates(self) -> int:
        """Largest number of candidates."""
        return int(self.strategy.candidates(self.generations, self.population))

    def training_seed(self, stage: str, number: int) -> int:
        """Return the seed of the trainings of a generation, or of a round of the finals."""
        return derived_seed(self.seed, STAGES.index(stage), number)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which candidates come after which, as plain values.

        How many generations there are, and how a winner is chosen, does not: a search goes on with more of them.
        """
        chosen = ("generations", "finals", "trainings")
        return {name: value for name, value in self.to_dict().items() if name not in chosen}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: getattr(self, name) for name in ("generations", "population", "seed")}
        parts = {name: getattr(self, name).to_dict() for name in ("space", "strategy", "finals", "budget")}
        return {**values, **parts, "trainings": self.trainings}


@dataclass(frozen=True)
class Objective:
    """What a search optimises, and the loss that it must beat.

    Attributes:
        num_classes: at least 2.
        original: name of the module's own loss.
        options: options of each original loss, see :func:`~tglo_lightning.losses.loss_options`.
        priors: frequencies of the classes among the training labels, with sum 1; ``None`` if they are not known.
    """

    num_classes: int
    monitor: str = "fitness"
    mode: str = "max"
    original: str = "original"
    options: tuple[dict[str, Any], ...] = ()
    priors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        choice("mode", self.mode, MODES)
        integer("num_classes", self.num_classes, 2)

    def notes(self, settings: SearchSettings, evaluator: str) -> dict[str, Any]:
        """Return the ``settings`` of a result: those of the search, and what it was about."""
        of_task = {"num_classes": self.num_classes, "original_options": list(self.options)}
        return {**settings.to_dict(), "evaluator": evaluator, **of_task}
