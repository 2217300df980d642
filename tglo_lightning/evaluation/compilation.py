"""Compiles a pass over some candidates."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch

__all__ = ["compiled"]


def compiled(method: Any, device: torch.device) -> Callable[..., Any]:
    """A bound method, compiled for the shapes that it is called with.

    To save memory torch's partitioner hands backward the signs of a ReLU's outputs as booleans. On a CPU they are not
    written in vector instructions, which takes some twenty times as long as the ReLU; so there backward is handed the
    outputs, as it is without compilation.
    """
    f = method.__func__
    # Torch gives up on a code that it has compiled eight times, and each population is compiled anew
    own = FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    return torch.compile(MethodType(own, method.__self__), dynamic=False, options=_options(device))


def _options(device: torch.device) -> dict[str, Any] | None:
    if device.type != "cpu":
        return None
    try:
        from torch._inductor.config import custom_partitioner_fn  # noqa: F401  (whether the option is known)

        from tglo_lightning.evaluation.partition import SaveAll
    except ImportError:
        return None
    return {"custom_partitioner_fn": SaveAll()}
