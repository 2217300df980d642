"""What one batch shows of a module, before anything is trained."""

from __future__ import annotations

import hashlib
import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tglo_lightning.evaluation.bases import Callback
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import isolated, preserved, seed_all
from tglo_lightning.evaluation.slot import loss_for
from tglo_lightning.evaluation.trainer import Guard, validated
from tglo_lightning.losses import TaylorGLOLoss

__all__ = ["Probe", "probe"]


@dataclass(frozen=True)
class Probe:
    """What one batch of training and validation shows of a module.

    Attributes:
        num_classes: classes of the logits that reach the loss.
        metrics: names of the metrics that are logged.
        fingerprint: of the first batch's logits and targets, hence of weights and data, and of the optimizer.
        targets: fingerprint of the first batch's targets alone, the same on any hardware.
    """

    num_classes: int
    metrics: list[str]
    fingerprint: str
    targets: str


def probe(fit: InnerFit) -> Probe:
    """Train and validate on one batch with a copy, to find at once what would fail in every candidate.

    ``fit`` then knows the number of batches of an epoch.

    Raises:
        ValueError: the loss is not called in ``training_step``, is called with something other than logits and class
            targets; the monitored metric is not logged, or is computed from the loss itself.
        RuntimeError: the training failed.
    """
    kind = type(fit.module).__name__
    try:
        metrics, recorders, optimizers = _rehearse(fit)
        shifted, *_ = _rehearse(fit, shift=1.0)
    except Exception as error:
        raise RuntimeError(
            f"TaylorGLO trains a copy of {kind} on one batch before it searches, and that failed with "
            f"{type(error).__name__}: {error}\nCandidates are trained by Trainers without checkpoints and progress "
            "bar, whose loggers discard all. If it is the copy that failed, pass `init=` a function that builds a "
            "fresh module."
        ) from error
    calls = {path: _check_call(fit, path, recorder) for path, recorder in recorders.items()}
    classes = {path: logits.shape[min(logits.dim() - 1, 1)] for path, (logits, _) in calls.items()}
    if len(set(classes.values())) > 1:
        raise ValueError(f"Losses that are searched for together must have as many classes each, got {classes}.")
    if fit.monitor not in metrics:
        raise ValueError(
            f"`monitor={fit.monitor!r}` is not logged by {kind}; logged: {', '.join(sorted(metrics)) or 'nothing'}. "
            "Log it in validation_step with self.log, or pass one of these as `monitor=`."
        )
    before, after = float(metrics[fit.monitor]), float(shifted.get(fit.monitor, math.nan))
    if not (math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-6) or math.isnan(before) or math.isnan(after)):
        raise ValueError(
            f"`monitor={fit.monitor!r}` is computed from the loss that is to be replaced, so it cannot compare losses. "
            "Monitor what does not depend on it, such as an accuracy, or log F.cross_entropy(logits, target) under a "
            "name of its own."
        )
    return Probe(
        num_classes=next(iter(classes.values())),
        metrics=sorted(metrics),
        fingerprint=_fingerprint(optimizers, [recorder.called_with for recorder in recorders.values()]),
        targets=_fingerprint("", [target for _, target in calls.values()]),
    )


def _rehearse(fit: InnerFit, shift: float = 0.0) -> tuple[dict[str, Any], dict[str, _Recorder], str]:
    """Metrics after one batch, what the losses were called with, and the optimizers in words.

    ``shift`` changes the value of each loss, not its gradient.
    """
    limits: dict[str, Any] = {"limit_val_batches": 1 if fit.validates else 0, "overfit_batches": 0.0}
    if fit.budget.steps is not None:
        limits["max_epochs"] = fit.max_epochs
    with isolated(), preserved(fit.generators):
        graded = [name for name, parameter in fit.module.named_parameters() if parameter.grad is not None]
        module = fit.candidate(None, seed=0)
        recorders = {slot.path: _Recorder(slot.get(module), shift) for slot in fit.slots}
        for slot in fit.slots:
            slot.set(module, recorders[slot.path])
        trainer = fit.trainer(Guard(0, fit.generators), _OneBatch(), **limits)
        seed_all(0, fit.generators)
        trainer.fit(module, **fit.data())
        if touched := [name for name, p in fit.module.named_parameters() if p.grad is not None and name not in graded]:
            fit.module.zero_grad()
            raise ValueError(
                f"the training of a copy reached {touched[0]} of the module itself. A function that the module holds, "
                "such as a lambda over `self`, is not copied with it: make it a method."
            )
        optimizers = [
            (type(optimizer).__name__, [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups])
            for optimizer in trainer.optimizers
        ]
        metrics = validated(trainer, module, fit)
    fit.epoch_batches = trainer.num_training_batches
    return metrics, recorders, repr(optimizers)


def _fingerprint(optimizers: str, calls: Any) -> str:
    digest = hashlib.sha256(optimizers.encode())
    for leaf in tree_leaves(calls):
        values = leaf.double().tolist() if isinstance(leaf, Tensor) else leaf
        digest.update(repr(values).encode())
    return digest.hexdigest()[:16]


class _OneBatch(Callback):
    """Ends a training after its first batch."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = True


def _check_call(fit: InnerFit, path: str, recorder: _Recorder) -> tuple[Tensor, Tensor]:
    """Logits and targets of the first call of the loss, if a TaylorGLO loss could have taken it."""
    call = f"self.{path}(logits, target)"
    if recorder.called_with is None:
        raise ValueError(
            f"`loss={path!r}`: {type(fit.module).__name__}.{path} exists, but training_step does not call it. If it "
            f"calls F.cross_entropy, call {call} instead."
        )
    loss = loss_for(recorder.loss, TaylorGLOLoss().theta)
    args, kwargs = recorder.called_with
    try:
        logits, target = inspect.signature(loss.forward).bind(*args, **kwargs).args
    except (TypeError, ValueError):
        raise ValueError(f"`loss={path!r}` is not called as {call}; TaylorGLO's losses take just these.") from None
    if not (isinstance(logits, Tensor) and isinstance(target, Tensor)):
        raise ValueError(
            f"`loss={path!r}`: {call} needs tensors, got {type(logits).__name__} and {type(target).__name__}."
        )
    # Raises with its own message where shapes, types or ranges do not fit
    loss.to(logits.device)(logits, target)
    sums = target.sum(dim=min(target.dim() - 1, 1)) if target.is_floating_point() else torch.ones(1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError(
            f"`loss={path!r}`: the class probabilities of a target must add up to 1; these add up to "
            f"{sums.min().item():.4g} to {sums.max().item():.4g}. TaylorGLO cannot replace a multi-label loss."
        )
    return logits, target


class _Recorder(nn.Module):
    """Stands in for a loss and notes what it is first called with while gradients are on."""

    def __init__(self, loss: Any, shift: float = 0.0) -> None:
        super().__init__()
        self.loss = loss
        self.shift = shift
        self.called_with: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss."""
        if torch.is_grad_enabled() and self.called_with is None:
            self.called_with = _detached(args), _detached(kwargs)
        loss = self.loss(*args, **kwargs)
        return loss + (loss.detach() + self.shift) if self.shift else loss

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("loss"), name)


def _detached(values: Any) -> Any:
    return apply_to_collection(values, torch.Tensor, torch.Tensor.detach)
