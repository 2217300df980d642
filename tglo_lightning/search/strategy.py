"""CMA-ES by ask and tell, on a random generator of its own."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

__all__ = ["CMAES"]


class CMAES:
    """Covariance matrix adaptation over :mod:`cma`, from the origin.

    Hansen, *The CMA Evolution Strategy: A Tutorial* (arXiv 1604.00772). Three things differ from bare ``cma``: it
    draws from its own generator and never touches numpy's global one; a failed candidate is ranked worst, where
    ``cma`` would take NaN for the median; and any seed is a seed, 0 too.

    Args:
        dimension: length of the search vector.
        sigma: initial step size.
        population: candidates a generation.
        seed: seed of the generator.
    """

    def __init__(self, dimension: int, sigma: float, population: int, seed: int) -> None:
        # Imports matplotlib where it is installed, which takes its time
        import cma

        generator = np.random.default_rng(seed)
        self._es = cma.CMAEvolutionStrategy(
            np.zeros(dimension),
            sigma,
            {
                "popsize": population,
                # NaN: do not seed the global generator
                "seed": np.nan,
                "randn": lambda *shape: generator.standard_normal(shape),
                "verbose": -9,
                "verb_log": 0,
                "verb_disp": 0,
            },
        )

    @property
    def sigma(self) -> float:
        """Present step size."""
        return float(self._es.sigma)

    def shrink(self, factor: float) -> None:
        """Multiply the step size by ``factor``."""
        self._es.sigma *= factor

    def ask(self, number: int) -> list[list[float]]:
        """Draws from the present distribution."""
        return [vector.tolist() for vector in self._es.ask(number)]

    def tell(self, vectors: Sequence[Sequence[float]], costs: Sequence[float]) -> None:
        """Move the distribution towards the vectors with the lowest costs; a cost that is not finite ranks last."""
        finite = [cost for cost in costs if isfinite(cost)]
        worst = max(finite) + 1.0 if finite else 0.0
        self._es.tell([np.asarray(vector) for vector in vectors], [cost if isfinite(cost) else worst for cost in costs])
