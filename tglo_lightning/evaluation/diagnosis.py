"""What a training with the module's own loss says about the worth of another one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.search import Criterion
from tglo_lightning.search.seeding import seed_all

__all__ = ["Tally", "diagnose", "run_through"]

BINS = 15
"""Bins of confidence, of one width, that the calibration error is measured in."""

BATCHES = 50
"""Batches of training and of validation that a network is looked at with, at most."""


def diagnose(fit: InnerFit, population: Any, member: int) -> dict[str, float] | None:
    """Compare how a network does on its training data and on the validation data, by what reaches its loss.

    Args:
        fit: what was trained.
        population: networks in training.
        member: the one that was trained with the module's own loss.

    Returns:
        ``train_acc`` and ``val_acc``, the share of labels that its largest output agrees with, ``train_confidence`` and
        ``val_confidence``, the mean of that output, and ``val_ece``, the expected calibration error in 15 bins on the
        validation data; ``None`` if the targets are no class indices, or the module cannot be looked at like this.
    """
    found: dict[str, float] = {}
    try:
        weights = population.weights(member)
        with isolated(fit.generators):
            for stage in ("train", "val"):
                tally = _pass(fit, weights, stage)
                if not tally.count:
                    return None
                found[f"{stage}_acc"] = tally.hits / tally.count
                found[f"{stage}_confidence"] = tally.confidence / tally.count
            found["val_ece"] = float(tally.gaps.abs().sum()) / tally.count
    except Exception:  # code of the user's, called in another order than its own
        return None
    return found


def _pass(fit: InnerFit, weights: dict[str, Any], stage: str) -> Tally:
    """Call ``training_step`` on batches of one kind, without gradients and in evaluation mode."""
    module = fit.candidate(Criterion.original(), seed=0)
    module.load_state_dict(weights, strict=False)
    slot = next(iter(fit.slots))
    tally = Tally(slot.get(module))
    slot.set(module, tally)
    run_through(fit, module, module.training_step, stage, BATCHES)
    return tally


def run_through(fit: InnerFit, module: Any, step: Callable[..., Any], stage: str, batches: int) -> Any:
    """Call ``step`` as the validation step of a candidate, on batches of ``"train"`` or ``"val"``.

    Returns:
        The Trainer that did it.
    """
    module.validation_step = step
    for name in ("on_validation_epoch_start", "on_validation_epoch_end", "on_validation_batch_start"):
        setattr(module, name, _nothing)
    module.on_validation_batch_end = module.on_validation_start = module.on_validation_end = _nothing
    trainer = fit.trainer(limit_val_batches=batches)
    seed_all(0, fit.generators)
    trainer.validate(module, **_data(fit, module, stage), verbose=False)
    return trainer


def _data(fit: InnerFit, module: Any, stage: str) -> dict[str, Any]:
    """The data of one kind as arguments of ``Trainer.validate``."""
    if stage == "val":
        return fit.data(validate=True)
    given = fit.data()
    if "datamodule" in given:
        datamodule = copy.copy(given["datamodule"])
        datamodule.val_dataloader = datamodule.train_dataloader
        return {"datamodule": datamodule}
    if "train_dataloaders" not in given:
        module.val_dataloader = module.train_dataloader
    return {"dataloaders": given.get("train_dataloaders")}


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


class Tally(nn.Module):
    """Stands in for a loss, and counts what it is called with."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss
        self.count, self.hits, self.confidence = 0, 0, 0.0
        # Sum of confidence less hits in each bin
        self.gaps = torch.zeros(BINS, dtype=torch.float64)

    def forward(self, input: Tensor, target: Tensor) -> Any:
        """Count labels that are class indices; return the loss."""
        if input.dim() > 1 and not target.is_floating_point() and target.dim() == input.dim() - 1:
            confidence, chosen = torch.softmax(input.detach().float(), dim=1).max(dim=1)
            counts = target != getattr(self.loss, "ignore_index", -100)
            confidence, hits = confidence[counts].double().cpu(), (chosen == target)[counts].cpu()
            self.count += len(hits)
            self.hits += int(hits.sum())
            self.confidence += float(confidence.sum())
            bins = (confidence * BINS).long().clamp(max=BINS - 1)
            self.gaps += torch.bincount(bins, confidence - hits.double(), minlength=BINS)
        return self.loss(input, target)
