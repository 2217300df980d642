"""The attack libraries, imported when an attack first runs, and the network as they want it."""

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from tglo_lightning.attacks.model import AttackedModel
from tglo_lightning.evaluation.isolation import environment


class UnitBox(nn.Module):
    """The network with pixels in [0, 1], whatever its bounds."""

    def __init__(self, model: AttackedModel) -> None:
        super().__init__()
        self.training = model.training
        self.model = model
        self.low, high = model.bounds
        self.width = high - self.low
        self._same = model.bounds == (0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the network."""
        return self.model(self.back(x))

    def there(self, x: Tensor) -> Tensor:
        """From the network's bounds to [0, 1]."""
        return x if self._same else ((x - self.low) / self.width).clamp(0.0, 1.0)

    def back(self, x: Tensor) -> Tensor:
        """From [0, 1] to the network's bounds."""
        return x if self._same else x * self.width + self.low


def library(name: str, attack: str = "This attack") -> Any:
    """A module of foolbox, of eagerpy below it, or of pyautoattack.

    Raises:
        ImportError: the library is not installed; the message says what to type.
    """
    owner, extra = ("pyautoattack", "autoattack") if name.startswith("pyautoattack") else ("foolbox", "attacks")
    try:
        # foolbox imports GitPython, which fails where there is no git unless told to be quiet
        with environment(GIT_PYTHON_REFRESH="quiet"):
            return import_module(name)
    except ImportError as error:
        raise ImportError(f"{attack} needs {owner}: pip install 'tglo-lightning[{extra}]'") from error
