"""What one batch shows of a module, before anything is trained."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.labels import label_frequencies
from tglo_lightning.evaluation.trainer import Guard
from tglo_lightning.evaluation.validation import validated
from tglo_lightning.losses import TaylorGLOLoss, loss_like
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.fingerprint import Fingerprint
from tglo_lightning.search import Criterion
from tglo_lightning.search.rate import fixed_schedules
from tglo_lightning.search.seeding import seed_all
from tglo_lightning.wording import counted

__all__ = ["Probe", "Recorder", "probe"]

NOT_COPIED = "A function that the module holds, such as a lambda over `self`, is not copied with it: make it a method."
# How many samples are compared with those of an earlier search
SAMPLES = {"train": 256, "val": 10_000}


@dataclass(frozen=True)
class Probe:
    """What one batch of training and validation shows of a module.

    Attributes:
        num_classes: classes of the logits that reach the loss.
        metrics: names of the metrics that are logged.
        identity: module, weights, optimizers, data and Trainer in plain values, see
            :mod:`tglo_lightning.module.fingerprint`.
        inputs: shapes of the tensors of the first training batch.
        seen: the fingerprint, which has looked at all of that.
        priors: frequency of each class among the training labels, if they could be counted.
    """

    num_classes: int
    metrics: list[str]
    identity: dict[str, Any]
    inputs: list[list[int]]
    seen: Fingerprint
    priors: tuple[float, ...] | None = None


def probe(fit: InnerFit) -> Probe:
    """Train and validate on one batch with a copy, to find at once what would fail in every candidate.

    ``fit`` then knows the number of batches of an epoch.

    Raises:
        ValueError: the loss is not called in ``training_step``, or with something other than logits and class targets;
            the monitored metric is not logged, or is computed from the loss itself.
        RuntimeError: the training failed.
    """
    kind = type(fit.module).__name__
    try:
        seen = Fingerprint()
        metrics, recorders, identity, has_validated, inputs = _rehearse(fit, seen)
        shifted, *_ = _rehearse(fit, None, shift=1.0)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        raise RuntimeError(
            f"TaylorGLO trains a copy of {kind} on one batch before it searches, and that failed with "
            f"{type(error).__name__}: {error}\nCandidates are trained by Trainers without checkpoints and progress "
            "bar, whose loggers discard all. If it is the copy that failed, pass `init=` a function that builds a "
            "fresh module."
        ) from error
    if identity["fixed_rates"]:
        warnings.warn(
            f"{', '.join(identity['fixed_rates'])} sets learning rates of its own: it does not look at base_lrs. The "
            "factor on the learning rate that is searched for has no effect there. Multiply base_lrs, or search "
            "without a step, by space=TaylorSpace() or FamilySpace(..., step=False).",
            stacklevel=2,
        )
    classes = {path: _check_call(fit, path, recorder) for path, recorder in recorders.items()}
    if len(set(classes.values())) > 1:
        raise ValueError(f"Losses that are searched for together must have as many classes each, got {classes}.")
    if fit.monitor not in metrics:
        advice = "Log it in validation_step with self.log, or pass one of these as `monitor=`."
        if has_validated and "val" not in identity["data"]:
            advice = "The validation loader gave no batch: is its data set empty, or smaller than a batch it drops?"
        elif not has_validated:
            advice = (
                "There is no validation: it needs a validation_step, validation data in fit or a val_dataloader, and "
                "`limit_val_batches` above 0."
            )
        raise ValueError(
            f"`monitor={fit.monitor!r}` is not logged by {kind}; logged: {', '.join(sorted(metrics)) or 'nothing'}. "
            f"{advice}"
        )
    before, after = float(metrics[fit.monitor]), float(shifted.get(fit.monitor, math.nan))
    if not (math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-6) or math.isnan(before) or math.isnan(after)):
        raise ValueError(
            f"`monitor={fit.monitor!r}` is computed from the loss that is to be replaced, so it cannot compare losses. "
            "Monitor what does not depend on it, such as an accuracy, or log F.cross_entropy(logits, target) under a "
            "name of its own."
        )
    num_classes = next(iter(classes.values()))
    return Probe(num_classes, sorted(metrics), identity, inputs, seen, _priors(fit, num_classes))


def _priors(fit: InnerFit, num_classes: int) -> tuple[float, ...] | None:
    """Frequencies of the classes, from the labels of a part of an epoch."""
    with isolated(fit.generators):
        module = fit.candidate(Criterion.original(), seed=0)
        slot = next(iter(fit.slots))
        recorder = Recorder(slot.path, slot.get(module))
        slot.set(module, recorder)
        counting = _CountLabels(recorder, num_classes)
        seed_all(0, fit.generators)
        fit.trainer(Guard(0, fit), counting, limit_val_batches=0, overfit_batches=0.0).fit(module, **fit.data())
    return counting.frequencies


def _rehearse(
    fit: InnerFit, seen: Fingerprint | None, shift: float = 0.0
) -> tuple[dict[str, Any], dict[str, Recorder], dict[str, Any], bool, list[list[int]]]:
    """Metrics after one batch, what the losses were called with, what the training depends on, whether there is
    validation, and the shapes of that batch.

    What it depends on goes into ``seen``. ``shift`` changes the value of each loss, not its gradient.
    """
    limits: dict[str, Any] = {"limit_val_batches": 1 if fit.validates else 0, "overfit_batches": 0.0}
    if fit.budget.steps is not None:
        limits["max_epochs"] = fit.max_epochs
    with isolated(fit.generators):
        graded = [name for name, parameter in fit.module.named_parameters() if parameter.grad is not None]
        module = fit.candidate(Criterion.original(), seed=0)
        identity = {} if seen is None else seen.module(module)
        recorders = {slot.path: Recorder(slot.path, slot.get(module), shift) for slot in fit.slots}
        for slot in fit.slots:
            slot.set(module, recorders[slot.path])
        first = _FirstBatches()
        trainer = fit.trainer(Guard(0, fit), first, **limits)
        seed_all(0, fit.generators)
        trainer.fit(module, **fit.data())
        if touched := [name for name, p in fit.module.named_parameters() if p.grad is not None and name not in graded]:
            fit.module.zero_grad()
            raise ValueError(f"the training of a copy reached {touched[0]} of the module itself. {NOT_COPIED}")
        own = {id(parameter) for parameter in fit.module.parameters()}
        if any(id(p) in own for optimizer in trainer.optimizers for g in optimizer.param_groups for p in g["params"]):
            raise ValueError(
                "the optimizer of a copy holds parameters of the module itself. A function that the module holds, such "
                "as a lambda over `self`, is not copied with it: make it a method."
            )
        metrics = validated(trainer, module, fit, seed=0)
        if seen is not None:
            identity["optimizers"] = seen.optimizers(trainer)
            identity["fixed_rates"] = fixed_schedules(config.scheduler for config in trainer.lr_scheduler_configs)
            identity["data"] = {
                stage: seen.data(loaders, fit.generators, most=SAMPLES[stage])
                for stage, loaders in first.loaders.items()
            }
            identity["datamodule"] = seen.value(fit.datamodule)
            identity["trainer"] = {
                name: value if isinstance(value, str) else seen.value(value) for name, value in fit.training.items()
            }
            identity["callbacks"] = [seen.value(callback) for callback in fit.callbacks]
            identity["start"] = seen.value(fit.init)
    fit.epoch_batches = trainer.num_training_batches
    if "train" not in first.loaders:
        raise _Refused(
            "there is nothing to train on: the training loader gave no batch. Is its data set empty, or smaller than a "
            "batch that it drops?"
        )
    inputs = [list(leaf.shape) for leaf in tree_leaves(first.batch) if isinstance(leaf, Tensor)]
    return metrics, recorders, identity, trainer.enable_validation, inputs


class _Refused(ValueError):
    """What is wrong with module or data, told in full; other errors of a rehearsal are told as they come."""


class _FirstBatches(Callback):
    """Ends a training after its first batch; keeps that batch, and the loaders."""

    def __init__(self) -> None:
        self.batch: Any = None
        self.loaders: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if "train" not in self.loaders:
            # A step may change its batch
            self.batch = copy.deepcopy(_detached(batch))
            self.loaders["train"] = trainer.train_dataloader

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = True

    def on_validation_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.loaders["val"] = trainer.val_dataloaders


class _CountLabels(Callback):
    """Ends a training after its first batch, and counts the labels of an epoch."""

    def __init__(self, recorder: Recorder, num_classes: int) -> None:
        self.recorder, self.num_classes = recorder, num_classes
        self.frequencies: tuple[float, ...] | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = True
        if self.recorder.called_with is not None:
            target = [*self.recorder.called_with[0], *self.recorder.called_with[1].values()][-1]
            self.frequencies = label_frequencies(trainer.train_dataloader, batch, target, self.num_classes)


def _check_call(fit: InnerFit, path: str, recorder: Recorder) -> int:
    """The number of classes in the first call of the loss, if a TaylorGLO loss could have taken it."""
    call = f"self.{path}(logits, target)"
    if recorder.called_with is None:
        raise ValueError(
            f"`loss={path!r}`: {type(fit.module).__name__}.{path} exists, but training_step does not call it. If it "
            f"calls F.cross_entropy, call {call} instead."
        )
    loss = loss_like(recorder.loss, "taylorglo", TaylorGLOLoss().theta.tolist())
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
    return logits.shape[min(logits.dim() - 1, 1)]


class Recorder(nn.Module):
    """Stands in for a loss and notes what it is first called with while gradients are on."""

    def __init__(self, path: str, loss: Any, shift: float = 0.0) -> None:
        super().__init__()
        self.path = path
        self.loss = loss
        self.shift = shift
        self.called_with: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss."""
        if torch.is_grad_enabled() and self.called_with is None:
            self.called_with = _detached(args), _detached(kwargs)
            # torch's own losses say less, and on a GPU later
            _check_outputs(self.path, args, getattr(self.loss, "ignore_index", -100))
        loss = self.loss(*args, **kwargs)
        if not isinstance(loss, Tensor):
            raise _Refused(
                f"`loss={self.path!r}` returns a {type(loss).__name__}; TaylorGLO replaces losses that return a tensor."
            )
        return loss + (loss.detach() + self.shift) if self.shift else loss

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("loss"), name)


def _check_outputs(path: str, args: tuple[Any, ...], ignored: Any) -> None:
    """Refuse targets of a class that the network has no output for."""
    logits, target = args if len(args) == 2 else (None, None)
    if not (isinstance(logits, Tensor) and isinstance(target, Tensor)) or logits.dim() == 0:
        return
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return
    outputs = logits.shape[min(logits.dim() - 1, 1)]
    counting = target[target != ignored]
    if counting.numel() and int(counting.max()) >= outputs:
        raise _Refused(
            f"`loss={path!r}`: the targets hold class {int(counting.max())}, but the network has "
            f"{counted(outputs, 'output')}, for classes from 0 to {outputs - 1}."
        )


def _detached(values: Any) -> Any:
    return apply_to_collection(values, torch.Tensor, torch.Tensor.detach)
