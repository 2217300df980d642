"""See what reaches a module's loss."""

from __future__ import annotations

import inspect
from typing import Any

from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn


class _Reached(BaseException):
    """Ends a step at the loss. Not an ``Exception``, so that no handler of the module holds it up."""


def loss_inputs(module: Any, loss: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """The logits and the target with which ``training_step`` calls ``loss`` first.

    The step ends there: nothing that follows the loss is run, no backward pass, no step of a manual optimisation. Call
    it within :func:`~tglo_lightning.module.preserving.preserved_module`.

    Raises:
        ValueError: ``training_step`` does not call ``loss``.
    """
    seen: list[Any] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.extend(inspect.signature(loss.forward).bind(*args, **kwargs).args)
        raise _Reached

    step = module.training_step
    arguments = (batch, 0) if is_param_in_hook_signature(step, "batch_idx", min_args=2) else (batch,)
    hook = loss.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        step(*arguments)
    except _Reached:
        logits, target, *_ = seen
        return logits, target
    finally:
        hook.remove()
    raise ValueError(
        f"{type(module).__name__}.training_step does not call the loss that AttractionMonitor watches. Call it there, "
        "as in self.criterion(logits, target), or pass `loss=` the path of the attribute that it calls."
    )
