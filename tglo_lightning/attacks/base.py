"""What an attack is."""

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tglo_lightning.arguments import integer
from tglo_lightning.attacks.model import AttackedModel
from tglo_lightning.search.seeding import seed_all

NORMS = ("linf", "l2")


@dataclass(frozen=True)
class Attack:
    """Base of the attacks: frozen dataclasses, their fields the settings.

    A subclass says how to attack at one epsilon, by :meth:`run`. What it returns is projected onto the ball and the
    bounds, and judged, by the caller: an attack cannot report what it has not done.

    Attributes:
        knowledge: what it uses: ``"gradient"``, ``"scores"`` or ``"decisions"`` (gradient-free), or ``"ensemble"``.
        iterated: whether it takes many steps.
    """

    knowledge = "gradient"
    iterated = True

    @property
    def name(self) -> str:
        """Short name, unique among attacks that differ in more than their budget."""
        return type(self).__name__.lower()

    def check_counts(self, *names: str) -> None:
        """Check that the fields ``names`` are ints of at least 1, and make them Python's own, for the report."""
        for name in names:
            object.__setattr__(self, name, integer(name, getattr(self, name), 1))

    @property
    def settings(self) -> dict[str, Any]:
        """The fields, as plain values."""
        return asdict(self)

    def run(self, model: AttackedModel, x: Tensor, labels: Tensor, epsilon: float, norm: str) -> Tensor:
        """Images like ``x`` of which as many as possible are misclassified, at most ``epsilon`` away.

        Args:
            model: the network, in evaluation mode.
            x: images that are classified rightly, shape ``(N, C, H, W)``, within the model's bounds.
            labels: their classes, int64 of shape ``(N,)``.
            epsilon: above 0, in units of pixels.
            norm: ``"linf"`` or ``"l2"``.
        """
        raise NotImplementedError

    def perturb(
        self, model: AttackedModel, x: Tensor, labels: Tensor, epsilons: list[float], norm: str, seed: int
    ) -> Iterator[Tensor]:
        """The images of :meth:`run` for each epsilon in turn; the random generators are seeded for each."""
        for epsilon in epsilons:
            seed_all(derived_seed(seed, self.name, repr(epsilon)))
            yield self.run(model, x, labels, epsilon, norm)


def derived_seed(seed: int, *names: str) -> int:
    """A seed that follows from ``seed`` and ``names``, so that no attack's randomness depends on its neighbours."""
    words = [seed, *(zlib.crc32(name.encode()) for name in names)]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def project(x: Tensor, near: Tensor, epsilon: float, norm: str, bounds: tuple[float, float]) -> Tensor:
    """``x``, shape ``(N, ...)``, moved into the bounds and into the ball of radius ``epsilon`` around ``near``.

    Where it is not finite it becomes ``near``.
    """
    finite = torch.isfinite(x).flatten(1).all(1).view(-1, *[1] * (x.dim() - 1))
    x = torch.where(finite, x, near)
    if norm == "linf":
        return torch.maximum(torch.minimum(x, near + epsilon), near - epsilon).clamp(*bounds)
    x = x.clamp(*bounds)
    length = (x - near).flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))
    # Images that are near enough but for rounding stay as they are
    return torch.where(length > epsilon * (1 + 1e-6), near + (x - near) * (epsilon / length), x)
