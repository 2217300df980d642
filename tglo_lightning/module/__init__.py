"""The user's module: find its loss, replace it, copy the module, leave it as it was."""

from tglo_lightning.module.slot import InlineSlot, LossSlot, LossSlots, restore_loss, restore_original

__all__ = ["InlineSlot", "LossSlot", "LossSlots", "restore_loss", "restore_original"]
