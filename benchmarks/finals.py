"""How often do the finals replace the original loss, wrongly and rightly?

Fitness is drawn from normal distributions, as if every training had a standard deviation of 1 between seeds; the finals
are those of the package. ``shared`` is the part of that variance that comes from what trainings of one seed have in
common, such as the weights at the start and the order of the batches.

Columns: share of the searches in which the original is replaced if all candidates are as good as it (wrongly), worse by
half a standard deviation (wrongly), better by one, and better by two.

    python benchmarks/finals.py --trials 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

import numpy as np

from tglo_lightning.search import Candidate, Criterion, Evaluation, Finals

GAPS = {"equal": 0.0, "worse by 0.5 sd": -0.5, "better by 1 sd": 1.0, "better by 2 sd": 2.0}
CONFIRM: dict[str, dict[str, int]] = {
    **{str(confirm): {"confirm": confirm} for confirm in (3, 5, 10, 20)},
    "10, look 4": {"confirm": 10, "look": 4},
}
SHARED = (0.0, 0.5, 0.8)
CANDIDATES = 20


def replaced(finals: Finals, gap: float, *, shared: float = 0.0, trials: int = 2000, seed: int = 0) -> float:
    """Return the share of simulated searches in which the original loss is replaced.

    Args:
        finals: how the winner is chosen and confirmed.
        gap: how much better than the original every candidate is, in standard deviations between seeds.
        shared: part of the variance that trainings of one seed have in common, in [0, 1].
        trials: number of searches.
        seed: seed of the draws.
    """
    draws = np.random.default_rng(seed)

    def train(stage: str, number: int, criteria: Sequence[Criterion]) -> list[Evaluation]:
        common = shared**0.5 * draws.standard_normal()
        noise = (1 - shared) ** 0.5 * draws.standard_normal(len(criteria))
        means = [0.0 if criterion.is_original else gap for criterion in criteria]
        return [Evaluation(mean + common + own) for mean, own in zip(means, noise.tolist(), strict=True)]

    criteria = [Criterion.of("smoothing", [index / CANDIDATES]) for index in range(CANDIDATES)]
    count = 0
    for _ in range(trials):
        fitness = train("generation", 0, criteria)
        history = [Candidate.of(0, index, c, e) for index, (c, e) in enumerate(zip(criteria, fitness, strict=True))]
        count += finals.run(train, history, "original", "max").replaces
    return count / trials


def table(trials: int) -> str:
    """Return the table in Markdown."""
    names = ["`confirm`", "shared", *GAPS]
    rows = ["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |"]
    for (name, options), shared in product(CONFIRM.items(), SHARED):
        shares = [replaced(Finals(**options), gap, shared=shared, trials=trials) for gap in GAPS.values()]
        rows.append(f"| {name} | {shared:g} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="simulated searches in each cell")
    print(table(parser.parse_args().trials))
