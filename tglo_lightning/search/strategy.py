"""Strategies: what to try next."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf, isfinite
from typing import Any

import numpy as np

from tglo_lightning.arguments import number
from tglo_lightning.search.criterion import Criterion
from tglo_lightning.search.evaluator import Evaluation, Population
from tglo_lightning.search.space import Space

# Some seconds of drawing: a constraint that rejects so many in a row can hardly be satisfied
MAX_REJECTED = 10_000


class Strategy(ABC):
    """Proposes criteria and learns from their scores.

    A strategy of your own implements :meth:`ask`, and :meth:`tell` if it learns. It draws random numbers from
    ``generator``; if it remembers anything else, it implements :meth:`state_dict` and :meth:`load_state_dict`. To look
    at candidates while they train, it overrides :meth:`train`.

    Attributes:
        space: the space to search in, set by :meth:`start`.
        population: candidates for each generation, set by :meth:`start`.
        generator: source of random numbers, seeded by :meth:`start`.
        mode: ``"max"`` or ``"min"``, set by the search.
        rejected: draws rejected by the space's constraint so far.
        generations: generations of a search that names no number.
    """

    space: Space
    population: int
    generator: np.random.Generator
    mode: str = "max"
    rejected: int = 0
    generations: int = 10

    def for_kind(self, kind: str) -> Strategy:
        """Return the strategy for a kind of target; itself, unless it has spaces of its own."""
        return self

    def start(self, space: Space, population: int, seed: int) -> None:
        """Begin a search; everything an earlier search left is forgotten."""
        self.space, self.population, self.rejected = space, population, 0
        self.generator = np.random.default_rng(seed)

    @abstractmethod
    def ask(self) -> list[Criterion]:
        """Return the candidates of the next generation."""

    def tell(self, costs: Sequence[float]) -> None:  # noqa: B027  (a strategy need not learn)
        """Learn the costs of the criteria that were asked last, in their order; lower is better, NaN if failed."""

    def train(self, population: Population) -> Iterable[Evaluation]:
        """Train the population that was asked, by default to the end; yield one evaluation for each member, in order.

        A strategy that drops members returns their last scores.
        """
        population.advance(population.length)
        return population.scores()

    def cost(self, evaluation: Evaluation) -> float:
        """Return a score as a cost, by which members can be sorted: lower is better, infinite if failed."""
        return (-evaluation.fitness if self.mode == "max" else evaluation.fitness) if evaluation.ok else inf

    def candidates(self, generations: int, population: int) -> int:
        """Return how many candidates a search has at most."""
        return generations * population

    def finals(self, finals: Any) -> int:
        """Return how many trainings the finals take at most after the candidates, given their settings."""
        return int(finals.trainings)

    def retry(self) -> bool:
        """Prepare to ask again after no candidate of a generation could be trained; False to give up."""
        return False

    def metrics(self) -> dict[str, float]:
        """Return numbers to log after each generation."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what the next :meth:`ask` depends on, as lists, dicts, strings and numbers."""
        return {"generator": self.generator.bit_generator.state} if hasattr(self, "generator") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state, after :meth:`start`."""
        if "generator" in state:
            self.generator.bit_generator.state = state["generator"]

    def draw(
        self,
        sample: Callable[[int], Iterable[Sequence[float]]],
        count: int | None = None,
        space: Space | None = None,
    ) -> tuple[list[list[float]], list[Criterion]]:
        """Draw feasible points, again for those that the space rejects; return them and their criteria.

        Args:
            sample: returns that many points, whose first numbers are the coordinates.
            count: how many points; by default one for each candidate of a generation.
            space: by default the space of the search.

        Raises:
            ValueError: 10,000 draws in a row were rejected.
        """
        points: list[list[float]] = []
        criteria: list[Criterion] = []
        count, space, in_a_row = self.population if count is None else count, space or self.space, 0
        while len(points) < count:
            for x in sample(count - len(points)):
                point = [float(value) for value in x]
                criterion = space.decode(point[: len(space.axes)])
                if space.feasible(criterion):
                    points.append(point)
                    criteria.append(criterion)
                    in_a_row = 0
                else:
                    self.rejected += 1
                    in_a_row += 1
            if in_a_row >= MAX_REJECTED:
                raise ValueError(
                    f"`constraint` rejected {in_a_row:,} draws in a row. Loosen it, or change the space's `spread` or "
                    "`coordinates`."
                )
        return points, criteria

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that tell this strategy from another one: its class and its arguments, if they are
        attributes of the same names.
        """
        given = {name: getattr(self, name, None) for name in inspect.signature(type(self)).parameters}
        options = {name: value for name, value in given.items() if isinstance(value, bool | int | float | str)}
        return {"name": f"{type(self).__module__}.{type(self).__qualname__}", **options}


def normal(space: Space, generator: np.random.Generator, count: int, sigma: float = 1.0) -> Any:
    """Draw coordinates around a space's centre, shape ``(count, axes)``; ``sigma`` is a factor on its spread."""
    return np.array(space.centre) + sigma * np.array(space.spread) * generator.standard_normal((count, len(space.axes)))


class RandomSearch(Strategy):
    """Draws every candidate from the space's prior, a normal distribution."""

    def ask(self) -> list[Criterion]:
        """Draw a generation."""
        return self.draw(partial(normal, self.space, self.generator))[1]


class CMAES(Strategy):
    """Covariance matrix adaptation by :mod:`cma`, from the space's prior.

    Unlike bare ``cma`` it leaves numpy's global generator alone, ranks a failed candidate worst, not as the median, and
    takes any seed, 0 too.

    Args:
        sigma: initial step size, a factor on the space's spread, above 0.

    Source: Hansen, *The CMA Evolution Strategy: A Tutorial* (arXiv 1604.00772).
    """

    # The parts of cma's object whose numbers change from one generation to the next
    PARTS = ("sm", "adapt_sigma", "sigma_vec", "fit")
    # Points and directions that the next generation is to hold
    LISTS = ("pop_injection_directions", "pop_injection_solutions")

    def __init__(self, sigma: float = 1.0) -> None:
        self.sigma = number("sigma", sigma, above=0)

    def start(self, space: Space, population: int, seed: int) -> None:
        """Begin at the space's centre."""
        super().start(space, population, seed)
        # Imports matplotlib if it is installed, which takes its time
        import cma

        self._points: list[list[float]] = []
        # cma needs two dimensions
        padding = max(0, 2 - len(space.axes))
        options = {
            "popsize": population,
            # Mirrors for the next generation are lost if a constraint rejects them, and no number of `es` tells them.
            # Two candidates cannot do without
            "CMA_mirrors": population < 3,
            "CMA_mirrormethod": 0,
            "CMA_stds": [*space.spread, *[1.0] * padding],
            # NaN: do not seed the global generator
            "seed": np.nan,
            "randn": lambda *shape: self.generator.standard_normal(shape),
            "verbose": -9,
            "verb_log": 0,
            "verb_disp": 0,
        }
        self._es = cma.CMAEvolutionStrategy([*space.centre, *[0.0] * padding], self.sigma, options)

    def ask(self) -> list[Criterion]:
        """Draw a generation from the present distribution."""

        def sample(count: int) -> Any:
            with warnings.catch_warnings():
                # It says so when few points are drawn again and a direction of its own waits for the next generation
                warnings.filterwarnings("ignore", message="orphanated injected solution")
                return self._es.ask(count)

        self._points, criteria = self.draw(sample)
        return criteria

    def tell(self, costs: Sequence[float]) -> None:
        """Move the distribution towards the points with the lowest costs."""
        finite = [cost for cost in costs if isfinite(cost)]
        worst = max(finite) + 1.0 if finite else 0.0
        ranked = [cost if isfinite(cost) else worst for cost in costs]
        self._es.tell([np.array(point) for point in self._points], ranked)

    def retry(self) -> bool:
        """Halve the step size: nearer to the centre more losses can be trained."""
        self._es.sigma *= 0.5
        return True

    def metrics(self) -> dict[str, float]:
        """Return the present step size."""
        return {"sigma": float(self._es.sigma)}

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of the distribution, and the state of the generator."""
        parts = {name: _numbers(getattr(self._es, name)) for name in self.PARTS}
        lists = {name: [point.tolist() for point in getattr(self._es, name)] for name in self.LISTS}
        return {**super().state_dict(), "es": _numbers(self._es) | lists, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state after :meth:`tell`."""
        # One generation for nothing, with which cma makes the rest of its attributes
        points = self._es.ask()
        self._es.tell(points, [0.0] * len(points))
        for name in ("es", *self.PARTS):
            part = self._es if name == "es" else getattr(self._es, name)
            for key, value in state[name].items():
                if isinstance(value, dict):
                    value = np.array(value["array"], order=value["order"])
                vars(part)[key] = [np.array(entry) for entry in value] if isinstance(value, list) else value
        super().load_state_dict(state)


def _numbers(part: Any) -> dict[str, Any]:
    """Return the numbers and arrays of numbers among the attributes of an object, for JSON."""
    found: dict[str, Any] = {}
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
            # Products of a matrix that lies in memory by columns differ in their last bits
            found[name] = {"array": value.tolist(), "order": "F" if np.isfortran(value) else "C"}
        # What is infinite is a limit, and never changes
        elif isinstance(value, bool | int | float | np.integer | np.floating) and isfinite(value):
            found[name] = value.item() if isinstance(value, np.generic) else value
    return found
