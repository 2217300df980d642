"""Load a module whose loss was metalearned."""

from __future__ import annotations

import warnings
from typing import Any

from tglo_lightning.module import restore_loss
from tglo_lightning.untrusted import load_checkpoint


def load_from_checkpoint(module_class: Any, checkpoint_path: Any, **kwargs: Any) -> Any:
    """``module_class.load_from_checkpoint`` for a module that was trained with a metalearned loss.

    The class may still build its original loss, as it did before the search: the metalearned one is rebuilt from the
    ``theta`` in the checkpoint. Every weight is then checked, unless ``strict=False`` is given.

    Args:
        module_class: the LightningModule's class.
        checkpoint_path: a local checkpoint, read with ``weights_only=True``.
        kwargs: what ``module_class.load_from_checkpoint`` takes, arguments of the class among them.

    Returns:
        The module, its loss a :class:`~tglo_lightning.losses.TaylorGLOLoss` if one was kept.
    """
    state_dict = load_checkpoint(checkpoint_path)["state_dict"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found keys that are not in the model state dict")
        module = module_class.load_from_checkpoint(checkpoint_path, **(kwargs | {"strict": False}))
    restore_loss(module, state_dict)
    module.load_state_dict(state_dict, strict=kwargs.get("strict") is not False)
    return module
