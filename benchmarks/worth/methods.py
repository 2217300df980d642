"""The methods: how each spends its trainings. Add one with ``@method("name")``, here or in a file of your own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.worth.scenarios import Scenario
from benchmarks.worth.trainer import Ask, Member, Scores, StackEvaluator
from tglo_lightning.losses import ClassificationLoss, robust
from tglo_lightning.losses.priors import prior
from tglo_lightning.losses.shape import cross_entropy_twin, from_minimal, normalized
from tglo_lightning.search import (
    CMAES,
    Criterion,
    Finals,
    Objective,
    Portfolio,
    SearchSettings,
    ShapeSpace,
    Space,
    Strategy,
    TaylorSpace,
    search,
)
from tglo_lightning.search.seeding import derived_seed

TESTS = 5  # unseen seeds of every reported figure
FEW = (2, 10, (3, 4))  # 20 candidates, 3 finalists x 4 seeds


@dataclass(frozen=True)
class Outcome:
    """What a method came to.

    Attributes:
        criterion: what it chose; None if it chose a network.
        trainings: what it trained to choose.
        score: which epoch counts, ``"last"`` or ``"best"``.
        networks: validation and test score for each unseen seed, if it tested by itself.
    """

    criterion: Criterion | None
    trainings: int
    score: str = "last"
    networks: Scores | None = None


@dataclass(frozen=True)
class Bench:
    """One split of a scenario, for a method to train on.

    Attributes:
        seed: of the split, and of everything that is drawn.
        classes: number of classes.
        unbalanced: whether the most frequent class has more than three times the samples of the rarest.
        ask: trains members.
    """

    scenario: Scenario
    seed: int
    row: int
    classes: int
    unbalanced: bool
    ask: Ask

    @property
    def sgd(self) -> bool:
        """Whether the optimizer is SGD."""
        return self.scenario.training.optimizer == "sgd"

    def test_seeds(self) -> list[int]:
        """The unseen seeds, the same for all methods."""
        return [derived_seed(self.seed, 99, i) for i in range(TESTS)]

    def test(self, criterion: Criterion, score: str) -> Scores:
        """Train from the unseen seeds; return validation and test scores."""
        return self.ask([Member(criterion, self.row, seed, score, test=True) for seed in self.test_seeds()])

    def tune(
        self,
        space: Space | str,
        strategy: Strategy,
        generations: int,
        population: int,
        finals: tuple[int, int],
        score: str = "last",
    ) -> Outcome:
        """Search with the package, then take the best of ``finals`` (candidates, fresh seeds of each) by their mean."""
        # The package's finals confirm as well, which decides nothing here: one training, not counted
        settings = SearchSettings(
            generations, population, space, strategy, Finals(finalists=finals[0], seeds=0, confirm=1), seed=self.seed
        )
        result = search(StackEvaluator(self.ask, self.row, score), settings, Objective(self.classes))
        seeds = [settings.training_seed("choice", i) for i in range(finals[1])]
        best = [finalist.criterion for finalist in result.finalists]
        scores = self.ask([Member(c, self.row, seed, score) for c in best for seed in seeds])
        means = np.nan_to_num([value for value, _ in scores], nan=-9.0).reshape(len(best), -1).mean(1)
        return Outcome(best[int(means.argmax())], generations * population + finals[0] * finals[1], score)


METHODS: dict[str, Callable[[Bench], Outcome | None]] = {}


def method(name: str) -> Callable[[Callable[[Bench], Outcome | None]], Callable[[Bench], Outcome | None]]:
    """Enter a method: a function of a `Bench`, which returns None where it does not apply."""

    def enter(fn: Callable[[Bench], Outcome | None]) -> Callable[[Bench], Outcome | None]:
        METHODS[name] = fn
        return fn

    return enter


def fixed(name: str, make: Callable[[int], Criterion], score: str = "last", unbalanced_only: bool = False) -> None:
    """Enter a loss as it is; ``make`` gets the number of classes."""
    METHODS[name] = lambda b: None if unbalanced_only and not b.unbalanced else Outcome(make(b.classes), 1, score)


def tuned(
    name: str,
    space: str | Callable[[], Space],
    score: str = "last",
    unbalanced_only: bool = False,
    budget: tuple[int, int, tuple[int, int]] = (8, 20, (5, 10)),
) -> None:
    """Enter a loss whose parameters and rate are searched by CMA-ES; ``budget``: generations, population, finals."""

    def run(b: Bench) -> Outcome | None:
        if unbalanced_only and not b.unbalanced:
            return None
        sigma = 1.0 if callable(space) else 1.2
        return b.tune(space() if callable(space) else space, CMAES(sigma), *budget, score)

    METHODS[name] = run


def of_robust(classes: int, step: float = 1.0) -> Criterion:
    """The loss of the prior."""
    return Criterion.of("taylorglo", robust(classes).theta.tolist(), step)


def of_twin(classes: int, step: float = 1.0) -> Criterion:
    """The normalised twin of cross-entropy."""
    return Criterion.of("taylorglo", from_minimal(normalized(cross_entropy_twin(classes), classes)).tolist(), step)


class Bootstrapping(ClassificationLoss):
    """Soft bootstrapping: cross-entropy with labels that are mixed with the prediction (arXiv 1412.6596)."""

    family = "bootstrapping"
    axes = ()

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """``-(0.95 y + 0.05 h) log h``."""
        log_h = logits.log_softmax(dim=1)
        return -(0.95 * y + 0.05 * log_h.exp()) * log_h


class HardBootstrapping(ClassificationLoss):
    """Hard bootstrapping: labels are mixed with the predicted class (arXiv 1412.6596)."""

    family = "hard_bootstrapping"
    axes = ()

    def terms(self, logits: Tensor, y: Tensor) -> Tensor:
        """``-(0.8 y + 0.2 argmax h) log h``."""
        guess = torch.zeros_like(y).scatter(1, logits.argmax(1, keepdim=True), 1.0)
        return -(0.8 * y + 0.2 * guess) * logits.log_softmax(dim=1)


KNOWN = ["original", "smoothing", "gce", "sce", "mae", "brier", "bootstrapping", "hard_bootstrapping", "focal"]
KNOWN += ["nce_rce", "forward"]


class Mix(Portfolio):
    """Random draws from known losses in turn, then CMA-ES in the space whose two best draws have the best mean."""

    def __init__(self) -> None:
        super().__init__(KNOWN, rates=(), explore=60)

    def start(self, space: Space, population: int, seed: int) -> None:
        """Begin with draws."""
        super().start(space, population, seed)
        self._seen: dict[int, list[tuple[float, list[float]]]] = {}

    def tell(self, costs: Sequence[float]) -> None:
        """Remember the draws of each space."""
        if self._refining is None:
            for cost, (index, x) in zip(costs, self._asked, strict=True):
                self._seen.setdefault(index, []).append((cost if math.isfinite(cost) else 1e9, x))
        super().tell(costs)

    def _refine(self) -> None:
        pairs = {index: sorted(seen, key=lambda pair: pair[0])[:2] for index, seen in self._seen.items()}
        index = min(pairs, key=lambda i: fmean(cost for cost, _ in pairs[i]))
        self._best = (pairs[index][0][0], index, pairs[index][0][1])
        super()._refine()


class Presets(Strategy):
    """A list of criteria, once; then, if there is a space to search, CMA-ES from the best rate of the prior."""

    def __init__(self, criteria: Sequence[Criterion], tries: Sequence[tuple[int, float]] = ()) -> None:
        self.criteria, self.tries = list(criteria), list(tries)

    def start(self, space: Space, population: int, seed: int) -> None:
        """Begin with the list."""
        super().start(space, population, seed)
        self._seed, self._cmaes = seed, None

    def ask(self) -> list[Criterion]:
        """Return the list, or a generation of CMA-ES."""
        return self.criteria if self._cmaes is None else self._cmaes.ask()

    def tell(self, costs: Sequence[float]) -> None:
        """Start CMA-ES at the best of ``tries``, pairs of a place in the list and a rate."""
        if self._cmaes is not None:
            self._cmaes.tell(costs)
        elif self.tries:
            rate = min((c if math.isfinite(c) else 1e9, r) for c, r in ((costs[i], r) for i, r in self.tries))[1]
            start = self.space.around([*self.space.centre[:-1], math.log(rate)], 1.0)
            self._cmaes = CMAES(0.6)
            self._cmaes.start(start, self.population, self._seed)


def prior_space() -> ShapeSpace:
    """Shape and rate around the prior, with the prior's spread."""
    space = ShapeSpace()
    space.centre, space.spread = (*prior().t, 0.0), (*prior().spread, 1.0)
    return space


def from_prior(b: Bench, candidates: int, finals: tuple[int, int]) -> Outcome:
    """CMA-ES from the prior; its first generation is the prior, the twin and known losses at some rates."""
    k = 3.0 if b.sgd else 1.0
    n, known = b.classes, Criterion.of
    first = [of_robust(n, k * r) for r in (1.0, 0.3, 0.1)] + [of_twin(n, k * r) for r in (0.3, 0.1)]
    first += [known("gce", [0.7], k * r) for r in (0.3, 0.1)] + [known("sce", [0.1, 1.0], k * 0.3)]
    first += [known("nce_rce", [4.0], k * 0.3), Criterion.original(k * 0.1)]
    strategy = Presets(first, [(i, k * r) for i, r in enumerate((1.0, 0.3, 0.1))])
    return b.tune(prior_space(), strategy, candidates // 10, 10, finals)


def presets(b: Bench) -> list[Criterion]:
    """The ten configurations of the default."""
    known, n = Criterion.of, b.classes
    rates = (1.0, 0.3, 3.0) if b.unbalanced else (1.0, 0.3, 3.0, 0.1)
    chosen = [Criterion.original(), known("smoothing", [0.1])]
    chosen += [c for r in rates for c in (known("sce", [0.1, 1.0], r), of_robust(n, r))]
    return chosen + ([known("logit_adjustment", [1.0]), known("class_weights", [1.0])] if b.unbalanced else [])


fixed("ce", lambda n: Criterion.original())
fixed("ce, best epoch", lambda n: Criterion.original(), "best")
tuned("ce, rate", "original")
tuned("ce, rate, best epoch", "original", "best")
fixed("smoothing", lambda n: Criterion.of("smoothing", [0.1]))
fixed("gce", lambda n: Criterion.of("gce", [0.7]))
tuned("gce, tuned", "gce")
fixed("sce", lambda n: Criterion.of("sce", [0.1, 1.0]))
fixed("sce, best epoch", lambda n: Criterion.of("sce", [0.1, 1.0]), "best")
tuned("sce, tuned", "sce")
tuned("nce_rce, tuned", "nce_rce")
tuned("ce, rate, best epoch, 32", "original", "best", budget=FEW)
tuned("gce, tuned, 32", "gce", budget=FEW)
tuned("sce, tuned, 32", "sce", budget=FEW)
fixed("robust", of_robust)
fixed("twin", of_twin)
fixed("logit adjustment", lambda n: Criterion.of("logit_adjustment", [1.0]), unbalanced_only=True)
tuned("logit adjustment, tuned", "logit_adjustment", unbalanced_only=True)
tuned("class weights, tuned", "class_weights", unbalanced_only=True)
tuned("taylorglo from 0", lambda: TaylorSpace(step=True))


@method("mix")
def mix(b: Bench) -> Outcome:
    """Tune the best of eleven known losses."""
    return b.tune("gce", Mix(), 8, 20, (5, 10))


@method("default")
def default(b: Bench) -> Outcome:
    """Ten presets, the best two with three more seeds."""
    return b.tune("gce", Presets(presets(b)), 1, 10, (2, 3))


@method("prior, 20")
def prior_20(b: Bench) -> Outcome:
    """CMA-ES from the prior, 20 candidates."""
    return from_prior(b, 20, (3, 4))


@method("prior, 160")
def prior_160(b: Bench) -> Outcome:
    """CMA-ES from the prior, 160 candidates."""
    return from_prior(b, 160, (5, 10))


@method("race")
def race(b: Bench) -> Outcome:
    """Ten presets side by side, all to the end; the best network at the best of ten checks stays.

    As many races as unseen seeds.
    """
    criteria = presets(b)
    scores = b.ask([Member(c, b.row, seed, "best", 10, True) for seed in b.test_seeds() for c in criteria])
    races = [scores[i : i + len(criteria)] for i in range(0, len(scores), len(criteria))]
    best = [max(race, key=lambda pair: pair[0] if math.isfinite(pair[0]) else -math.inf) for race in races]
    return Outcome(None, len(criteria), "best", best)


def run(name: str, b: Bench) -> dict[str, Any] | None:
    """Run a method on a split; return a line of results, or None where it does not apply."""
    outcome = METHODS[name](b)
    if outcome is None:
        return None
    scores = outcome.networks or b.test(outcome.criterion or Criterion.original(), outcome.score)
    chosen = outcome.criterion
    return {
        "scenario": b.scenario.name,
        "group": b.scenario.group,
        "split": b.seed,
        "method": name,
        "trainings": outcome.trainings,
        "score": outcome.score,
        "test": [None if not math.isfinite(t) else round(t, 5) for _, t in scores],
        "val": round(float(np.mean([v for v, _ in scores])), 5) if all(math.isfinite(v) for v, _ in scores) else None,
        "criterion": chosen and chosen.to_dict(),
    }
