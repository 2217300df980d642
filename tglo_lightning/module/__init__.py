"""The user's module: find its loss, replace it, copy the module, leave it as it was."""

from tglo_lightning.module.slot import LossSlot, LossSlots, restore_loss, restore_original

__all__ = ["LossSlot", "LossSlots", "restore_loss", "restore_original"]
