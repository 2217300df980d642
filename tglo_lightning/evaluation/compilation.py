"""Compiles a pass that is trained on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["compiled"]


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``function``, compiled for the shapes that it is called with.

    To save memory torch's partitioner hands backward the signs of a ReLU's outputs as booleans. On a CPU they are not
    written in vector instructions, which takes some twenty times as long as the ReLU; so there backward is handed the
    outputs, as it is without compilation.
    """
    partitioner = _partitioner() if device.type == "cpu" else None
    options = None if partitioner is None else {"custom_partitioner_fn": partitioner}
    return torch.compile(function, dynamic=False, options=options)


def _partitioner() -> Any:
    """The partitioner that recomputes nothing, as an option of ``torch.compile``; ``None`` where torch has no such."""
    try:
        from functorch.compile import default_partition
        from torch._inductor import config
        from torch._inductor.custom_graph_pass import CustomPartitionerFn
    except ImportError:
        return None
    if not hasattr(config, "custom_partitioner_fn"):
        return None

    class Partitioner(CustomPartitionerFn):  # type: ignore[misc, unused-ignore]
        def __call__(self, graph: Any, inputs: Any, **kwargs: Any) -> Any:
            kwargs.pop("compiler", None)
            return default_partition(graph, inputs, **kwargs)

        def uuid(self) -> str:
            return "default_partition"

    return Partitioner()
