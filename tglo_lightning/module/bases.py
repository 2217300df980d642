"""Lightning under both of its names.

``pytorch_lightning`` and ``lightning.pytorch`` are different classes, and each Trainer accepts its own callbacks only.
A callback that inherits from both is accepted by both.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytorch_lightning as pl

if TYPE_CHECKING or find_spec("lightning") is None:
    Callback = pl.Callback
else:
    import lightning.pytorch as lightning_pl

    class Callback(pl.Callback, lightning_pl.Callback):
        """A callback for ``pytorch_lightning.Trainer`` and ``lightning.pytorch.Trainer``."""


# What either Trainer accepts
CALLBACKS: tuple[type, ...] = Callback.__bases__ if Callback is not pl.Callback else (pl.Callback,)
