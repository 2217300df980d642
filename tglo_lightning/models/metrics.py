"""What a classifier is judged by: accuracy, and how good its probabilities are."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

__all__ = ["BrierScore", "NegativeLogLikelihood", "classification_metrics"]

CALIBRATION_BINS = 15


class _SampleMean(Metric):
    """Mean over samples of a number that each has."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take in logits (B, num_classes) and class indices (B,)."""
        values = self._of_samples(preds.float(), target)
        self.total += values.sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        """The mean over all samples so far."""
        return self.total / self.count

    def _of_samples(self, logits: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError


class NegativeLogLikelihood(_SampleMean):
    """Mean of `-log h_T`, `h_T` the probability of the true class, in nats."""

    def _of_samples(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")


class BrierScore(_SampleMean):
    """Mean of `sum_k (y_k - h_k)^2` over the classes, `y` the one-hot label: from 0 to 2."""

    def _of_samples(self, logits: Tensor, target: Tensor) -> Tensor:
        h = logits.softmax(dim=1)
        hit = h.gather(1, target.unsqueeze(1)).squeeze(1)
        return h.square().sum(dim=1) - 2 * hit + 1


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Metrics of logits (B, num_classes) against class indices (B,), by the names `acc`, `nll`, `ece` and `brier`.

    Accuracy in [0, 1]; the mean negative log-likelihood in nats; the expected calibration error in [0, 1], which is the
    mean distance of confidence and accuracy over 15 bins of confidence, weighted by their samples (arXiv 1706.04599);
    and the Brier score. All of them can be compared across losses, which the value of a loss cannot.

    Args:
        num_classes: number of classes.
        prefix: put before each name, such as `"val/"`.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "acc": MulticlassAccuracy(num_classes, average="micro"),
        "nll": NegativeLogLikelihood(),
        "ece": MulticlassCalibrationError(num_classes, n_bins=CALIBRATION_BINS, norm="l1"),
        "brier": BrierScore(),
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
