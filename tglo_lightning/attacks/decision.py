"""A gradient-free attack that needs no more than foolbox."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.attacks.base import Attack, derived_seed
from tglo_lightning.attacks.library import UnitBox, library
from tglo_lightning.attacks.model import AttackedModel
from tglo_lightning.search.seeding import seed_all


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """A walk along the decision boundary (arXiv 1904.02144), from decisions alone.

    It looks for the nearest misclassified image, once for all epsilons, and starts from an image of the same batch that
    the network puts into another class. It needs thousands of passes an image; :class:`Square` needs fewer.

    Args:
        steps: steps along the boundary.
        samples: passes that estimate the direction of the first step; later steps take more.
    """

    knowledge = "decisions"

    steps: int = 10
    samples: int = 100

    def __post_init__(self) -> None:
        self.check_counts("steps", "samples")

    def perturb(
        self, model: AttackedModel, x: Tensor, labels: Tensor, epsilons: list[float], norm: str, seed: int
    ) -> Iterator[Tensor]:
        """Yield what one :meth:`run` finds, the same for every epsilon."""
        seed_all(derived_seed(seed, self.name))
        nearest = self.run(model, x, labels, max(epsilons), norm)
        for _ in epsilons:
            yield nearest

    def run(self, model: AttackedModel, x: Tensor, labels: Tensor, epsilon: float, norm: str) -> Tensor:
        """See :meth:`Attack.run`; what is found may be further away than ``epsilon``."""
        others = (labels[None, :] != labels[:, None]).float()
        startable = others.any(1).nonzero().squeeze(1)
        if not len(startable):
            return x
        start = x[torch.multinomial(others[startable], 1).squeeze(1)]
        fb: Any = library("foolbox", "HopSkipJump")
        attack = fb.attacks.HopSkipJumpAttack(
            steps=self.steps,
            initial_gradient_eval_steps=self.samples,
            max_gradient_eval_steps=10 * self.samples,
            constraint=norm,
        )
        unit = UnitBox(model)  # it clips to [0, 1] whatever the bounds
        adapter = fb.PyTorchModel(unit, bounds=(0.0, 1.0), device=x.device)
        target = fb.Misclassification(labels[startable])
        with torch.no_grad():
            found = attack.run(adapter, unit.there(x[startable]), target, starting_points=unit.there(start))
        return x.index_copy(0, startable, unit.back(found))
