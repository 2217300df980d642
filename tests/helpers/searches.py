"""Evaluators that train nothing: a criterion, a seed and how far it has trained make a score."""

from collections.abc import Callable

from tglo_lightning.search import Evaluation, Finals, Objective, RandomSearch, SearchSettings, TaylorSpace, search

CENTRE = [0.5, -0.5, 1.0, 0.2, -0.3, 0.8, 0.1, -0.6]
OBJECTIVE = Objective(10)
# Every draw of it is feasible
FREE = TaylorSpace(constraint=None)
FULL = TaylorSpace(coordinates="full", constraint=None)


def theta(criterion):
    """All parameters of a criterion."""
    return [value for loss in criterion.losses for value in loss.theta]


def sphere(criterion, seed=0, trained=1, original=-1e6):
    """Minus the squared distance from a point, with some noise of the seed's; the original has a fitness of its own."""
    if criterion.is_original:
        return Evaluation(original + seed / 2**32)
    distance = sum((t - c) ** 2 for t, c in zip(theta(criterion), CENTRE, strict=False))
    return Evaluation(-distance / trained + seed / 2**32)


class Scored:
    """An evaluator that calls ``score(criterion, seed, trained)``.

    Attributes:
        seen: criteria that were scored, in order.
        seeds: seeds of the populations, in order.
        trained: epochs that were spent.
        last: number of the call that fails as a kill would.
    """

    name = "scored"

    def __init__(
        self, score: Callable = sphere, *, length: int = 1, shares_passes: bool = False, last: int | None = None
    ) -> None:
        self.score, self.length, self.shares_passes, self.last = score, length, shares_passes, last
        self.seen, self.seeds, self.trained, self.open = [], [], 0, 0

    def start(self, criteria, seed):
        """Start."""
        self.seeds.append(seed)
        self.open += 1
        return ScoredPopulation(self, criteria, seed)


class ScoredPopulation:
    """Members that have trained for so many epochs."""

    def __init__(self, evaluator, criteria, seed):
        self.evaluator, self.criteria, self.seed = evaluator, criteria, seed
        self.length, self.trained = evaluator.length, 0
        self.members = list(range(len(criteria)))

    def advance(self, n):
        """Train on."""
        n = min(n, self.length - self.trained)
        self.trained += n
        self.evaluator.trained += n * len(self.members)

    def scores(self):
        """Score the members."""
        for member in self.members:
            if len(self.evaluator.seen) == self.evaluator.last:
                raise KeyboardInterrupt
            self.evaluator.seen.append(self.criteria[member])
            yield self.evaluator.score(self.criteria[member], self.seed, self.trained)

    def keep(self, members):
        """Keep some."""
        assert set(members) <= set(self.members)
        self.members = list(members)

    def close(self):
        """End."""
        self.evaluator.open -= 1


class Halving(RandomSearch):
    """Lets the better half train on after each epoch."""

    def train(self, population):
        last = {}
        while population.trained < population.length:
            population.advance(1)
            last |= dict(zip(population.members, population.scores(), strict=True))
            order = sorted(population.members, key=lambda member: self.cost(last[member]))
            population.keep(sorted(order[: max(1, len(order) // 2)]))
        return [last[member] for member in sorted(last)]


def settings(**options) -> SearchSettings:
    """Settings of a small search."""
    small = {"generations": 3, "population": 6, "space": FREE, "finals": Finals(finalists=2, seeds=2, confirm=3)}
    return SearchSettings(**(small | options))


def run(evaluator=None, objective=OBJECTIVE, journal=None, listener=None, **options):
    """Search with small settings."""
    evaluator = Scored() if evaluator is None else evaluator
    return search(evaluator, settings(**options), objective, journal=journal, listener=listener)


def plain(result):
    """All of a result that must be the same, bit for bit."""
    values = result.to_dict()
    del values["seconds"]
    return values
