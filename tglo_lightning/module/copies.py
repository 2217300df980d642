"""Where a candidate starts: from the weights as they are, from new ones, or from a fresh module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from tglo_lightning.module.loaders import large_data, nothing

INITS = ("module", "reset")
Init = str | Callable[[], Any]
COMPILED = ("forward", "training_step", "validation_step", "test_step", "predict_step")


def _resetter(module: nn.Module) -> Callable[[], None] | None:
    # nn.MultiheadAttention has only the private form
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def check_resettable(module: nn.Module) -> None:
    """Raise a ``ValueError`` that names the parameters of submodules without ``reset_parameters``, if there are any."""
    orphans = [
        f"{name}.{parameter}" if name else parameter
        for name, child in module.named_modules()
        if _resetter(child) is None
        for parameter, _ in child.named_parameters(recurse=False)
    ]
    if orphans:
        raise ValueError(
            f"init='reset' cannot re-initialise {', '.join(orphans)}: they belong to modules without a method "
            "`reset_parameters`. Add one, or pass `init=` a function that builds a fresh module."
        )


def replicate(module: nn.Module) -> Any:
    """Return a deep copy, also of what :func:`copy.deepcopy` does not copy: tensors that the module keeps of its last
    pass, and what is bound to its methods, such as the optimizer that LightningCLI binds to ``configure_optimizers``.

    Large tensors and arrays beside parameters and buffers hold data, and are shared.
    """
    kept = [leaf for child in module.modules() for leaf in tree_leaves(vars(child)) if isinstance(leaf, Tensor)]
    memo: dict[int, Any] = {id(leaf): leaf.detach().clone() for leaf in kept if not leaf.is_leaf}
    memo |= {id(data): data for data in large_data(module)}
    replica = copy.deepcopy(module, memo)
    for own, twin in zip(module.modules(), replica.modules(), strict=True):
        for name, value in vars(own).items():
            if isinstance(value, MethodType) and isinstance(bound := value.__func__, partial):
                arguments = [copy.deepcopy(entry, memo) for entry in bound.args]
                keywords = {key: copy.deepcopy(entry, memo) for key, entry in bound.keywords.items()}
                fresh = update_wrapper(partial(bound.func, *arguments, **keywords), bound)
                vars(twin)[name] = MethodType(fresh, copy.deepcopy(value.__self__, memo))
    return replica


def fresh_module(module: nn.Module, init: Init) -> Any:
    """A module to train: a copy of ``module``, re-initialised for ``"reset"``; or what the function ``init`` builds.

    Random numbers come from torch's global generator: seed it first.

    Raises:
        TypeError: the function returns no LightningModule.
        ValueError: the function returns a module that has been with a Trainer.
    """
    if callable(init):
        fresh = init()
        if not hasattr(fresh, "training_step"):
            raise TypeError(f"`init` must build a LightningModule, got {type(fresh).__name__}.")
        if getattr(fresh, "_trainer", None) is not None:
            raise ValueError("`init` must build a new module at each call; it returned one that was trained before.")
        return fresh
    replica = replicate(module)
    if getattr(replica, "_compiler_ctx", None) is not None:
        # What torch.compile put there would run the original module
        for name in COMPILED:
            vars(replica).pop(name, None)
        replica._compiler_ctx = None
    if init == "reset":
        # Children first: a parent may set what it knows better, as nn.MultiheadAttention does
        for child in reversed(list(replica.modules())):
            reset = _resetter(child)
            if reset is not None:
                reset()
    return replica


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """What ``SyncBatchNorm`` is on one rank: normalises inputs of any shape."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def leave_ranks(module: nn.Module) -> None:
    """Let the metrics and the ``SyncBatchNorm`` of a module average over this rank alone, in place."""
    for child in module.modules():
        if isinstance(child, Metric):
            child.distributed_available_fn = nothing
        elif type(child) is nn.SyncBatchNorm:
            child.__class__ = _BatchNorm  # type: ignore[assignment]


def copies_of(module: nn.Module, callbacks: Iterable[Any]) -> Iterator[Any]:
    """Yield a module and the copies of it that callbacks hold, as those that average weights do."""
    yield module
    for callback in callbacks:
        for value in vars(callback).values():
            for child in value.modules() if isinstance(value, nn.Module) else ():
                if type(child) is type(module) and child is not module:
                    yield child
