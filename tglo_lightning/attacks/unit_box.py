"""Pixels in [0, 1], for attacks that know no other bounds."""

from __future__ import annotations

from torch import Tensor, nn

from tglo_lightning.attacks.model import AttackedModel

__all__ = ["UnitBox"]


class UnitBox(nn.Module):
    """The network with pixels in [0, 1], whatever its bounds."""

    def __init__(self, model: AttackedModel) -> None:
        super().__init__()
        self.training = model.training
        self.model = model
        self.low, high = model.bounds
        self.width = high - self.low

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the network."""
        return self.model(self.back(x))

    def there(self, x: Tensor) -> Tensor:
        """From the network's bounds to [0, 1]."""
        return x if self._same else ((x - self.low) / self.width).clamp(0.0, 1.0)

    def back(self, x: Tensor) -> Tensor:
        """From [0, 1] to the network's bounds."""
        return x if self._same else x * self.width + self.low

    @property
    def _same(self) -> bool:
        return (self.low, self.width) == (0.0, 1.0)
