"""Losses of several kinds in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tglo_lightning.losses import ClassificationLoss, as_loss
from tglo_lightning.module import LossSlots
from tglo_lightning.search import Criterion

__all__ = ["MixedLoss", "kinds_of", "mix", "mixed_rows", "own_weights", "takes_own"]

Kind = tuple[tuple[str, int], ...]


class MixedLoss(nn.Module):
    """One loss of each kind, of which a candidate has one.

    All are computed, and those that a candidate does not have see logits of 0, so that their gradients are finite.

    Attributes:
        needed: places of the losses that some candidate has.
    """

    share: Tensor

    def __init__(self, losses: Iterable[nn.Module]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.register_buffer("share", torch.eye(len(self.losses))[0])
        self.needed = tuple(range(len(self.losses)))

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, n, ...) and targets."""
        if len(self.needed) == 1:
            value: Tensor = self.losses[self.needed[0]](input, target)
            return value
        total: Any = 0.0
        has = (self.share > 0).unbind()
        for place in self.needed:
            value = self.losses[place](torch.where(has[place], input, 0.0), target)
            total = total + torch.where(has[place], value, 0.0)
        return total

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Options such as class weights, which all share
            losses: Any = super().__getattr__("losses")
            return getattr(losses[0], name)


def kinds_of(criteria: Iterable[Criterion]) -> list[Kind]:
    """Return the kinds of some criteria, each once."""
    return list(dict.fromkeys(criterion.shape for criterion in criteria))


def takes_own(slots: LossSlots, module: Any) -> bool:
    """Whether the losses that a module has itself are known to work in a pass with others."""
    losses = [slot.get(module) for slot in slots]
    return all(type(loss) is nn.CrossEntropyLoss or isinstance(loss, ClassificationLoss) for loss in losses)


def mix(module: Any, slots: LossSlots, criteria: Sequence[Criterion]) -> None:
    """Put a loss of each kind into a module that has its own losses."""
    device = next(module.parameters()).device
    for number, slot in enumerate(slots):
        own = slot.get(module)
        examples = [next(c for c in criteria if c.shape == kind) for kind in kinds_of(criteria)]
        losses = [c.losses[number].build(own) if c.losses else as_loss(own) for c in examples]
        slot.set(module, MixedLoss(losses).to(device))


def mixed_rows(
    module: Any, slots: LossSlots, criteria: Sequence[Criterion], kinds: Sequence[Kind]
) -> dict[str, Tensor]:
    """Return the buffers in which candidates of several kinds differ, one row a candidate."""
    rows = {}
    for number, slot in enumerate(slots):
        loss = slot.get(module)
        places = [kinds.index(criterion.shape) for criterion in criteria]
        rows[f"{slot.path}.share"] = torch.eye(len(kinds), device=loss.share.device)[places]
        for place, one in enumerate(loss.losses):
            own = [
                one.theta.new_tensor(criterion.losses[number].theta) if criterion.losses and place == at else one.theta
                for criterion, at in zip(criteria, places, strict=True)
            ]
            rows[f"{slot.path}.losses.{place}.theta"] = torch.stack(own)
    return rows


def own_weights(weights: Mapping[str, Tensor], slots: LossSlots, place: int) -> dict[str, Tensor]:
    """Return the weights of a candidate under the names that they have with its own loss alone."""
    own = dict(weights)
    for slot in slots:
        for name in [name for name in own if name.startswith((f"{slot.path}.losses.", f"{slot.path}.share"))]:
            value = own.pop(name)
            if name.startswith(prefix := f"{slot.path}.losses.{place}."):
                own[f"{slot.path}.{name.removeprefix(prefix)}"] = value
    return own
