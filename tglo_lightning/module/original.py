"""Put the loss of a module back that was there before a search."""

from __future__ import annotations

from typing import Any

from torch import nn

from tglo_lightning.losses import FamilyLoss
from tglo_lightning.module.inline import detach
from tglo_lightning.module.slot import REPLACED, LossSlot

__all__ = ["restore_original"]


def restore_original(module: nn.Module) -> list[str]:
    """Give ``module`` the losses back that metalearned ones have replaced, in place.

    Afterwards its ``state_dict`` fits the class as it is without this package.

    Returns:
        The paths of the losses, such as ``["criterion"]``; empty if none was replaced.
    """
    found: dict[str, Any] = {
        path: (loss, vars(loss)[REPLACED][0])
        for path, loss in module.named_modules()
        if path and isinstance(loss, FamilyLoss) and REPLACED in vars(loss)
    }
    for path, (loss, original) in found.items():
        if isinstance(original, nn.Module):
            original.to(loss.theta.device).train(loss.training)
        LossSlot(path).set(module, original)
        owner, _, place = path.removesuffix(".criterion").rpartition(".")
        detach(module.get_submodule(owner), place)
    return list(found)
