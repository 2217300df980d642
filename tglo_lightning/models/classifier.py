"""A plain classifier, as a Lightning user would write one."""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy


class Classifier(pl.LightningModule):
    """Trains a network on (images, class indices) with the loss in its attribute `criterion`.

    Logs `train/loss`, `val/acc`, `val/nll`, `test/acc` and `test/nll`: accuracy in [0, 1] and mean negative
    log-likelihood in nats. Both are comparable across losses, which the value of `criterion` is not.

    Args:
        net: maps a batch to logits (B, num_classes).
        criterion: maps (logits, labels (B,)) to a scalar.
        num_classes: number of classes.
        optimizer: builds an optimizer from the parameters, such as `partial(torch.optim.SGD, lr=0.1)`.
        scheduler: builds a learning-rate scheduler, stepped once an epoch, from the optimizer; none by default.
    """

    def __init__(
        self,
        net: nn.Module,
        criterion: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], Any] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.criterion = criterion
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")
        self.val_nll = MeanMetric()
        self.test_acc = MulticlassAccuracy(num_classes, average="micro")
        self.test_nll = MeanMetric()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of a batch."""
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch."""
        x, y = batch
        loss: Tensor = self.criterion(self(x), y)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str, acc: MulticlassAccuracy, nll: MeanMetric) -> None:
        x, y = batch
        logits = self(x)
        acc.update(logits, y)
        nll.update(F.cross_entropy(logits, y), weight=len(y))
        self.log(f"{stage}/acc", acc, prog_bar=stage == "val")
        self.log(f"{stage}/nll", nll)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update `val/acc` and `val/nll`."""
        self._evaluate(batch, "val", self.val_acc, self.val_nll)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update `test/acc` and `test/nll`."""
        self._evaluate(batch, "test", self.test_acc, self.test_nll)

    def configure_optimizers(self) -> Any:
        """The optimizer over all parameters, with its scheduler if there is one."""
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}
