"""What a training logs, epoch by epoch."""

from __future__ import annotations

import math
from typing import Any

from tglo_lightning.module.bases import Callback


class CurveRecorder(Callback):
    """Keeps what a training logs: ``{metric: [one value an epoch]}``, None where there is none or it is not finite.

    It reads what Lightning has computed already, so the training is the same with it and without. Under DDP every rank
    needs one: the ranks compute a metric together.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[float | None]] = {}
        self.epochs = 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the metrics of the epoch, six digits of each."""
        for name, value in trainer.callback_metrics.items():
            number = float(value)
            curve = self.curves.setdefault(name, [])
            curve += [None] * (self.epochs - len(curve)) + [float(f"{number:.6g}") if math.isfinite(number) else None]
        self.epochs += 1
