"""A plain classifier, as a Lightning user would write one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MetricCollection

from tglo_lightning.arguments import number
from tglo_lightning.losses.registry import kind_of, one_hot
from tglo_lightning.models.metrics import classification_metrics
from tglo_lightning.wording import counted


class Classifier(pl.LightningModule):
    """Trains a network on (inputs, labels) with the loss in its attribute `criterion`.

    Labels are class indices (B,); in training they may be probabilities (B, num_classes). A loss of binary targets or
    of numbers is given their one-hot form: each class is a question of its own. A network with auxiliary classifiers
    returns a pair (logits, list of further logits) in training. Those go to losses of their own, in `aux_criteria`,
    and the loss is `criterion + aux_weight * (sum of the auxiliary losses)`.

    Logs `train/loss`, and in validation and test `acc`, `nll`, `ece` and `brier` below `val/` and `test/`: accuracy,
    negative log-likelihood, calibration error and Brier score, see :func:`classification_metrics`.

    Args:
        net: maps a batch to logits (B, num_classes), see above.
        criterion: maps (logits, labels) to a scalar.
        optimizer: builds an optimizer from the parameters, such as `partial(torch.optim.SGD, lr=0.1)`.
        scheduler: builds a learning-rate scheduler, stepped once an epoch, from the optimizer; none by default.
        aux_criteria: one loss for each auxiliary classifier of `net`, in its order.
        aux_weight: of the auxiliary losses, at least 0; 0.3 as in GoogLeNet (arXiv 1409.4842).

    Raises:
        ValueError: `aux_weight` is below 0. In training: the network has another number of auxiliary classifiers.
    """

    def __init__(
        self,
        net: nn.Module,
        criterion: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], Any] | None = None,
        *,
        aux_criteria: Sequence[nn.Module] = (),
        aux_weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.net = net
        self.criterion = criterion
        self.aux_criteria = nn.ModuleList(aux_criteria)
        self.aux_weight = number("aux_weight", aux_weight, least=0)
        self.one_hot = kind_of(criterion) in ("binary", "regression")
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.val_metrics = classification_metrics(num_classes, "val/")
        self.test_metrics = classification_metrics(num_classes, "test/")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of a batch."""
        return self._outputs(x)[0]

    def _outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        out = self.net(x)
        return (out, []) if isinstance(out, Tensor) else out

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch."""
        x, y = batch
        logits, aux = self._outputs(x)
        if self.one_hot and y.dim() == 1:
            y = one_hot(y, logits)
        loss: Tensor = self.criterion(logits, y)
        if self.training and len(aux) != len(self.aux_criteria):
            raise ValueError(
                f"aux_criteria holds {counted(len(self.aux_criteria), 'loss')} for "
                f"{counted(len(aux), 'auxiliary classifier')}"
            )
        for criterion, early in zip(self.aux_criteria, aux, strict=False):
            loss = loss + self.aux_weight * criterion(early, y)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], metrics: MetricCollection) -> None:
        x, y = batch
        metrics.update(self(x), y)
        for name, metric in metrics.items():
            self.log(name, metric, prog_bar=name == "val/acc")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the metrics of the validation data."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the metrics of the test data."""
        self._evaluate(batch, self.test_metrics)

    def configure_optimizers(self) -> Any:
        """The optimizer over all parameters, with its scheduler if there is one."""
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}
