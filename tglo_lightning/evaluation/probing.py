"""What one batch shows of a module, before anything is trained."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.evaluation.labels import label_frequencies
from tglo_lightning.evaluation.trainer import Guard, Training
from tglo_lightning.evaluation.validation import validated
from tglo_lightning.losses import TaylorGLOLoss, loss_like
from tglo_lightning.losses.registry import kind_of
from tglo_lightning.module import LossSlot, LossSlots
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.finding import LossWatch
from tglo_lightning.module.fingerprint import Fingerprint
from tglo_lightning.search import Criterion
from tglo_lightning.search.rate import fixed_schedules
from tglo_lightning.search.seeding import seed_all
from tglo_lightning.wording import counted

__all__ = ["Probe", "Recorder", "probe"]

NOT_COPIED = "A function that the module holds, such as a lambda over `self`, is not copied with it: make it a method."
# How many samples are compared with those of an earlier search
SAMPLES = {"train": 256, "val": 10_000}
# Losses for trials by kind of target, the first near to torch's: Taylor expansions of order 3, and a robust loss
TRIALS = {
    "classes": ("taylorglo", ((0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -2.0, 0.0), (0.0, 0.5, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0))),
    "binary": ("binary_taylor", ((1.0,) * 6, (0.5,) * 6)),
    "regression": ("barron", ((1.9, 1.0), (1.0, 1.0))),
}


@dataclass(frozen=True)
class Probe:
    """What one batch of training and validation shows of a module.

    Attributes:
        num_classes: classes of the logits that reach the loss; 2 for other kinds of target.
        identity: module, weights, optimizers, data and Trainer in plain values, see
            :mod:`tglo_lightning.module.fingerprint`.
        inputs: shapes of the tensors of the first training batch.
        seen: the fingerprint, which has looked at all of that.
        dependent: names of the metrics that are computed from the losses to be replaced.
        priors: frequency of each class among the training labels, if they could be counted.
    """

    num_classes: int
    identity: dict[str, Any]
    inputs: list[list[int]]
    seen: Fingerprint
    dependent: frozenset[str]
    priors: tuple[float, ...] | None = None


class _Rehearsal(Callback):
    """Ends a training after its first batch; keeps what shows until then and in a validation after it."""

    trainer: Any
    recorders: list[Recorder]
    metrics: dict[str, Any]
    identity: dict[str, Any]
    priors: tuple[float, ...] | None = None

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


def probe(fit: InnerFit, names: Sequence[str] | None = None) -> Probe:
    """Train and validate on one batch with a copy, to find at once what would fail in every candidate.

    ``fit`` then knows the number of batches of an epoch, and the slots of the losses if it had none.

    Args:
        fit: the inner fit.
        names: names of the losses to find, see :class:`~tglo_lightning.module.finding.LossWatch`.

    Raises:
        ValueError: the loss is not called in ``training_step``, or with something other than logits and class targets;
            the monitored metric is not logged, or is computed from the loss itself.
        RuntimeError: the training failed.
    """
    kind = type(fit.module).__name__
    seen = Fingerprint()
    try:
        fit.slots = _find(fit, names)
        first = _rehearse(fit, seen)
        shifted = _rehearse(fit, shift=1.0)
    except _Refused as error:
        raise ValueError("\n".join([str(error), *_unlogged_without_loss(fit)])) from None
    except Exception as error:
        raise RuntimeError(
            f"TaylorGLO trains a copy of {kind} on one batch before it searches, and that failed with "
            f"{type(error).__name__}: {error}\nCandidates are trained by Trainers without checkpoints and progress "
            "bar, whose loggers discard all. If it is the copy that failed, pass `init=` a function that builds a "
            "fresh module."
        ) from error
    if rates := first.identity["fixed_rates"]:
        warnings.warn(
            f"{', '.join(rates)} sets learning rates of its own: it does not look at base_lrs. The factor on the "
            "learning rate that is searched for has no effect there. Multiply base_lrs, or search without a step, by "
            "space=TaylorSpace() or FamilySpace(..., step=False).",
            stacklevel=2,
        )
    unlogged = _unlogged(fit, first)
    try:
        classes = {s.label: _check_call(fit, s, r) for s, r in zip(fit.slots, first.recorders, strict=True)}
    except ValueError as error:
        raise ValueError("\n".join([str(error), *unlogged])) from None
    if unlogged:
        raise ValueError(unlogged[0])
    if len(set(classes.values())) > 1:
        raise ValueError(f"Losses that are searched for together must have targets of one kind, got {classes}.")
    fit.kind, num_classes = next(iter(classes.values()))
    dependent = _differing(first, shifted)
    if fit.monitor in dependent:
        # Before the loss is blamed: does the same training give the same twice?
        again = _rehearse(fit)
        if fit.monitor not in _differing(first, again):
            raise ValueError(
                f"`monitor={fit.monitor!r}` is computed from the loss that is to be replaced, so it cannot compare "
                "losses. Monitor what does not depend on it, such as an accuracy, or log F.cross_entropy(logits, "
                "target) under a name of its own."
            )
        data = not _equal(first.batch, again.batch)
        cause = "the data gave other batches" if data else "the training drew other random numbers"
        warnings.warn(
            f"`monitor={fit.monitor!r}` came out differently when the training of a copy was repeated with the same "
            f"seed: {cause}. {'A sampler, dataset or transform' if data else kind} draws from a generator that cannot "
            "be seeded, or keeps a position. The search is noisier, and your fit differs from the one without it.",
            stacklevel=2,
        )
        dependent = set()
    return Probe(
        num_classes=num_classes,
        identity=first.identity,
        inputs=[list(leaf.shape) for leaf in tree_leaves(first.batch) if isinstance(leaf, Tensor)],
        seen=seen,
        dependent=frozenset(dependent),
        priors=first.priors,
    )


def _unlogged(fit: InnerFit, rehearsal: _Rehearsal) -> list[str]:
    """Return what is wrong with the monitored metric if it is not logged."""
    if fit.monitor in rehearsal.metrics:
        return []
    advice = "Log it in validation_step with self.log, or pass one of these as `monitor=`."
    validates = rehearsal.trainer.enable_validation
    if validates and "val" not in rehearsal.loaders:
        advice = "The validation loader gave no batch: is its data set empty, or smaller than a batch it drops?"
    elif not validates:
        advice = (
            "There is no validation: it needs a validation_step, validation data in fit or a val_dataloader, and "
            "`limit_val_batches` above 0."
        )
    logged = ", ".join(sorted(rehearsal.metrics)) or "nothing"
    return [f"`monitor={fit.monitor!r}` is not logged by {type(fit.module).__name__}; logged: {logged}. {advice}"]


def _unlogged_without_loss(fit: InnerFit) -> list[str]:
    """The same where the loss is at fault already, so that both are told at once; empty if that cannot be seen."""
    fit.slots = LossSlots.of([])
    try:
        return _unlogged(fit, _rehearse(fit))
    except Exception:  # what is wrong with the loss may end this too
        return []


def _differing(first: _Rehearsal, second: _Rehearsal) -> set[str]:
    """Names of the metrics that are not equal."""

    def differs(one: float, other: float) -> bool:
        return not (math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-6) or math.isnan(one) or math.isnan(other))

    both = first.metrics.keys() & second.metrics
    return {name for name in both if differs(float(first.metrics[name]), float(second.metrics[name]))}


def _equal(batch: Any, other: Any) -> bool:
    """Whether two batches hold the same tensors."""
    ours, theirs = ([leaf for leaf in tree_leaves(each) if isinstance(leaf, Tensor)] for each in (batch, other))
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def _find(fit: InnerFit, names: Sequence[str] | None) -> LossSlots:
    """Return where the losses are; if that is not known, train a copy on one batch to see which ones it calls."""
    watch = None
    if not len(fit.slots):
        with isolated(fit.generators):
            watch = LossWatch(
                fit.candidate(Criterion.original(), seed=0),
                lambda name, args, options: _check_outputs(name, args, options.get("ignore_index", -100)),
            )
            _train_on_one_batch(fit, watch.module, limit_val_batches=0)
    try:
        slots = fit.slots if watch is None else watch.slots(names)
        for slot in slots:
            slot.get(fit.module)
        return slots
    except ValueError as error:
        raise _Refused(str(error)) from None


def _rehearse(fit: InnerFit, seen: Fingerprint | None = None, shift: float = 0.0) -> _Rehearsal:
    """Train a copy on one batch, and validate it on one.

    ``seen`` takes in what the training depends on; ``shift`` changes the value of each loss, not its gradient.
    """
    with isolated(fit.generators):
        module = fit.candidate(Criterion.original(), seed=0)
        identity = {} if seen is None else seen.module(module)
        recorders = recorded(fit, module, shift)
        first = _train_on_one_batch(fit, module, limit_val_batches=1 if fit.validates else 0)
        first.recorders, first.metrics = recorders, validated(first.trainer, module, fit, seed=0)
        if seen is not None:
            schedules = (config.scheduler for config in first.trainer.lr_scheduler_configs)
            loaders, training = first.loaders.items(), fit.training.items()
            first.identity = {
                **identity,
                "optimizers": seen.optimizers(first.trainer),
                "fixed_rates": fixed_schedules(schedules),
                "data": {stage: seen.data(each, fit.generators, most=SAMPLES[stage]) for stage, each in loaders},
                "datamodule": seen.value(fit.datamodule),
                "trainer": {name: each if isinstance(each, str) else seen.value(each) for name, each in training},
                "callbacks": [seen.value(callback) for callback in fit.callbacks],
                "start": seen.value(fit.init),
            }
            seed_all(0, fit.generators)
            first.priors = label_frequencies(first.loaders["train"], first.batch, recorders[0].called_with)
    fit.epoch_batches = first.trainer.num_training_batches
    return first


def _train_on_one_batch(fit: InnerFit, module: Any, **limits: Any) -> _Rehearsal:
    """Train ``module``, a copy, and check that nothing reaches the original."""
    if fit.budget.steps is not None:
        limits["max_epochs"] = fit.max_epochs
    graded = [name for name, parameter in fit.module.named_parameters() if parameter.grad is not None]
    first = _Rehearsal()
    guard = Guard(Training(fit, {0: Criterion.original()}, seed=0))
    first.trainer = trainer = fit.trainer(guard, first, **(limits | {"overfit_batches": 0.0}))
    seed_all(0, fit.generators)
    trainer.fit(module, **fit.data())
    if "train" not in first.loaders:
        raise _Refused(
            "there is nothing to train on: the training loader gave no batch. Is its data set empty, or smaller than a "
            "batch that it drops?"
        )
    if touched := [name for name, p in fit.module.named_parameters() if p.grad is not None and name not in graded]:
        fit.module.zero_grad()
        raise ValueError(f"the training of a copy reached {touched[0]} of the module itself. {NOT_COPIED}")
    own = {id(parameter) for parameter in fit.module.parameters()}
    if any(id(p) in own for optimizer in trainer.optimizers for g in optimizer.param_groups for p in g["params"]):
        raise ValueError(f"the optimizer of a copy holds parameters of the module itself. {NOT_COPIED}")
    return first


class _Refused(ValueError):
    """What is wrong with module or data, told in full; other errors of a rehearsal are told as they come."""


def _check_call(fit: InnerFit, slot: LossSlot, recorder: Recorder) -> tuple[str, int]:
    """The kind of the targets and the number of classes in the first call of the loss, if another could take it."""
    label = slot.label
    call = f"{label if label.startswith('F.') else f'self.{label}'}(output, target)"
    if recorder.called_with is None:
        raise ValueError(
            f"`loss={label!r}`: training_step of {type(fit.module).__name__} does not call it. Leave out `loss=` to "
            "let the loss be found that it calls."
        )
    args, kwargs = recorder.called_with
    try:
        output, target = inspect.signature(TaylorGLOLoss().forward).bind(*args, **kwargs).args
    except (TypeError, ValueError):
        raise ValueError(f"`loss={label!r}` is not called as {call}; TaylorGLO's losses take just these.") from None
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
        raise ValueError(
            f"`loss={label!r}`: {call} needs tensors, got {type(output).__name__} and {type(target).__name__}."
        )
    kind = kind_of(recorder.loss) or _kind_of_target(output, target)
    family, thetas = TRIALS[kind]
    loss = loss_like(recorder.loss, family, thetas[0])
    # Raises with its own message where shapes, types or ranges do not fit
    shape = loss.to(output.device)(output, target).shape
    if shape != recorder.returned:
        # A loss of one's own may give a value for each sample without saying so
        loss.reduction = slot.reduction = "none"
        if (shape := loss(output, target).shape) != recorder.returned:
            raise ValueError(
                f"`loss={label!r}` returns a tensor of shape {tuple(recorder.returned)}; TaylorGLO replaces losses "
                f"that return a number, or a value for each sample, {tuple(shape)}."
            )
    if kind != "classes":
        return kind, 2
    if not _adds_up(target):
        raise ValueError(f"`loss={label!r}`: the class probabilities of a target must add up to 1.")
    return kind, output.shape[min(output.dim() - 1, 1)]


def _kind_of_target(output: Tensor, target: Tensor) -> str:
    """What a loss of the user's own compares, told from a batch."""
    if not target.is_floating_point() or target.shape != output.shape:
        return "classes" if target.dtype != torch.bool else "binary"
    low, high = map(float, target.aminmax())
    if low >= 0 and high <= 1 and target.dim() > 1 and target.shape[1] > 1 and _adds_up(target):
        return "classes"
    return "binary" if bool(((target == 0) | (target == 1)).all()) else "regression"


def _adds_up(target: Tensor) -> bool:
    """Whether class probabilities have the sum 1; indices have."""
    if not target.is_floating_point():
        return True
    sums = target.sum(dim=min(target.dim() - 1, 1))
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


class Recorder(nn.Module):
    """Stands in for a loss and notes what it is first called with while gradients are on."""

    def __init__(self, label: str, loss: Any, shift: float = 0.0) -> None:
        super().__init__()
        self.label = label
        self.loss = loss
        self.shift = shift
        self.called_with: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.returned = torch.Size()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss."""
        if torch.is_grad_enabled() and self.called_with is None:
            self.called_with = _detached(args), _detached(kwargs)
            # torch's own losses say less, and on a GPU later
            _check_outputs(self.label, args, getattr(self.loss, "ignore_index", -100))
        loss = self.loss(*args, **kwargs)
        if not isinstance(loss, Tensor):
            raise _Refused(
                f"`loss={self.label!r}` returns a {type(loss).__name__}; TaylorGLO replaces losses that return "
                "a tensor."
            )
        self.returned = loss.shape
        return loss + (loss.detach() + self.shift) if self.shift else loss

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("loss"), name)


def recorded(fit: InnerFit, module: Any, shift: float = 0.0) -> list[Recorder]:
    """Put recorders into the places of a module's losses; return them."""
    recorders = [Recorder(slot.label, slot.get(module), shift) for slot in fit.slots]
    for slot, recorder in zip(fit.slots, recorders, strict=True):
        slot.set(module, recorder)
    return recorders


def _check_outputs(label: str, args: tuple[Any, ...], ignored: Any) -> None:
    """Refuse targets of a class that the network has no output for."""
    logits, target = args if len(args) == 2 else (None, None)
    if not (isinstance(logits, Tensor) and isinstance(target, Tensor)) or logits.dim() == 0:
        return
    if target.shape == logits.shape or target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return
    outputs = logits.shape[min(logits.dim() - 1, 1)]
    counting = target[target != ignored]
    if counting.numel() and int(counting.max()) >= outputs:
        raise _Refused(
            f"`loss={label!r}`: the targets hold class {int(counting.max())}, but the network has "
            f"{counted(outputs, 'output')}, for classes from 0 to {outputs - 1}."
        )


def _detached(values: Any) -> Any:
    return apply_to_collection(values, torch.Tensor, torch.Tensor.detach)
