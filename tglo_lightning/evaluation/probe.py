"""What one batch shows of a module, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import isolated, preserved, seed_all
from tglo_lightning.losses import TaylorGLOLoss, taylorglo_like

__all__ = ["Probe", "probe"]


@dataclass(frozen=True)
class Probe:
    """What one batch of training and validation shows of a module.

    Attributes:
        num_classes: classes of the logits that reach the loss.
        metrics: names of the metrics that are logged.
    """

    num_classes: int
    metrics: list[str]


def probe(fit: InnerFit) -> Probe:
    """Train and validate one batch on a copy, to find at once what would fail in every candidate.

    Raises:
        ValueError: the loss is not called in ``training_step``, is called with something other than logits and
            class targets, or the monitored metric is not logged.
    """
    with isolated(), preserved(fit.generators):
        module = fit.candidate(None, seed=0)
        original = fit.slot.get(module)
        recorder = _Recorder(original)
        fit.slot.set(module, recorder)
        limits = {"limit_train_batches": 1, "limit_val_batches": 1, "overfit_batches": 0.0}
        trainer = fit.trainer(max_epochs=1, max_steps=-1, check_val_every_n_epoch=1, **limits)
        seed_all(0, fit.generators)
        trainer.fit(module, **fit.data())
    kind = type(fit.module).__name__
    if not recorder.calls:
        raise ValueError(
            f"`loss={fit.slot.path!r}`: {kind}.{fit.slot.path} exists, but training_step does not call it. If it "
            f"calls F.cross_entropy, call self.{fit.slot.path}(logits, target) instead."
        )
    args, kwargs = recorder.calls[0]
    logits = args[0] if args else kwargs["input"]
    # Raises with its own message where the loss's arguments do not fit
    taylorglo_like(original, TaylorGLOLoss().theta).to(logits.device)(*args, **kwargs)
    metrics = sorted(trainer.callback_metrics)
    if fit.monitor not in metrics:
        raise ValueError(
            f"`monitor={fit.monitor!r}` is not logged by {kind}; logged: {', '.join(metrics) or 'nothing'}. "
            "Log it in validation_step with self.log, or pass one of these as `monitor=`."
        )
    return Probe(num_classes=logits.shape[min(logits.dim() - 1, 1)], metrics=metrics)


class _Recorder(nn.Module):
    """Stands in for a loss and notes what it is called with while gradients are on."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss."""
        if torch.is_grad_enabled() and not self.calls:
            self.calls.append((_detached(args), _detached(kwargs)))
        return self.loss(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("loss"), name)


def _detached(values: Any) -> Any:
    return apply_to_collection(values, torch.Tensor, torch.Tensor.detach)
