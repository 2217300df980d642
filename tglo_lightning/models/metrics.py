"""What a classifier is judged by: accuracy, and how good its probabilities are."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

CALIBRATION_BINS = 15


class _SampleMean(MeanMetric):
    """Mean over samples of a number that each has; NaN if one is NaN."""

    higher_is_better = False  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(nan_strategy=float("nan"))

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Take in logits (B, num_classes) and class indices (B,)."""
        super().update(self.of_samples(preds.float(), target))

    @staticmethod
    def of_samples(logits: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError


class NegativeLogLikelihood(_SampleMean):
    """Mean of `-log h_T`, `h_T` the probability of the true class, in nats."""

    of_samples = staticmethod(partial(F.cross_entropy, reduction="none"))


class BrierScore(_SampleMean):
    """Mean of `sum_k (y_k - h_k)^2` over the classes, `y` the one-hot label: from 0 to 2."""

    @staticmethod
    def of_samples(logits: Tensor, target: Tensor) -> Tensor:
        """One score a sample."""
        h = logits.softmax(dim=1)
        return h.square().sum(dim=1) - 2 * h.gather(1, target.unsqueeze(1)).squeeze(1) + 1


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Metrics of logits (B, num_classes) against class indices (B,), named `prefix` and `acc`, `nll`, `ece`, `brier`.

    Accuracy in [0, 1]; the mean negative log-likelihood in nats; the expected calibration error in [0, 1], which is the
    mean distance of confidence and accuracy over 15 bins of confidence, weighted by their samples (arXiv 1706.04599);
    and the Brier score. All of them can be compared across losses, which the value of a loss cannot.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "acc": MulticlassAccuracy(num_classes, average="micro"),
        "nll": NegativeLogLikelihood(),
        "ece": MulticlassCalibrationError(num_classes, n_bins=CALIBRATION_BINS, norm="l1"),
        "brier": BrierScore(),
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
